"""Lets botocore read its models of S3 when this module is imported. Processes that are forked later have them."""

from export_worker.s3.sessions import process_session

process_session().client("s3", region_name="us-east-1").close()
