"""export-worker: exports from customer-data platforms into S3. This package imports nothing by itself."""
