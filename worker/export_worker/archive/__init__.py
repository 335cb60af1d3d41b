"""The archive: every ended export as one row of a Parquet file, one file an hour, in the bucket."""
