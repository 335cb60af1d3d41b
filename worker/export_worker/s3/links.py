"""Presigned links: addresses with which everyone who has them can download one object, for a short time."""

from typing import Any
from urllib.parse import quote

import boto3
from botocore.config import Config

from export_worker.s3.endpoints import Endpoint


def presigned_link(
    endpoint: Endpoint, session: boto3.session.Session, *, bucket: str, key: str, file_name: str, valid_s: int
) -> str:
    """Returns a link to an object. It is a secret while it is valid.

    Must not be called on the event loop: it reads files. Only the credentials may need a call; the link needs none. Of
    the storage settings, only the IAM role has an effect: a browser cannot send the header of `expected_bucket_owner`.

    Args:
        session: Has the credentials; see `session_for`.
        file_name: The name under which a browser saves the object. A browser never shows it as a page.
        valid_s: Seconds for which the link is valid.
    """
    # Without a version, botocore would sign with the one that newer regions and stores refuse.
    config = Config(signature_version="s3v4", s3={"addressing_style": endpoint.boto_addressing_style})
    client: Any = session.client("s3", region_name=endpoint.region, endpoint_url=endpoint.url, config=config)
    disposition = f"attachment; filename*=UTF-8''{quote(file_name, safe='')}"
    wanted = {"Bucket": bucket, "Key": key, "ResponseContentDisposition": disposition}
    try:
        link: str = client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=valid_s)
    finally:
        client.close()
    return link
