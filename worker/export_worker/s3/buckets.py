"""Creates a bucket on a local S3 server, for the demo. A worker never creates buckets."""

import boto3


def create_bucket(endpoint_url: str, bucket: str, *, access_key_id: str, secret_access_key: str) -> None:
    """Creates a bucket. Must not be called on the event loop."""
    session = boto3.session.Session(aws_access_key_id=access_key_id, aws_secret_access_key=secret_access_key)
    client = session.client("s3", endpoint_url=endpoint_url, region_name="us-east-1")
    client.create_bucket(Bucket=bucket)
    client.close()
