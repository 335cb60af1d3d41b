"""The object store. The only package that calls boto3 for S3."""
