"""Changes a file's bytes while they stream: charset, compression, row counts, Parquet."""
