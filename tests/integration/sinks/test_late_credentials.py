"""A sink of AWS finds credentials that appear, or are replaced, after it was built."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from export_worker.sinks.aws import AwsCalls, AwsEndpoint
from export_worker.sinks.base import SinkError
from support import secret_canaries
from support.s3_server import Call, Refusal, s3_proxy

REGION = "us-east-1"


@pytest.fixture
def credentials_file(s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only source of credentials. It does not exist yet."""
    assert s3_url
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    return path


def write(path: Path, key: str) -> None:
    secret = secret_canaries.AWS_SECRET_KEY
    path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n", encoding="ascii")


def queue_url(endpoint_url: str) -> str:
    client: Any = boto3.session.Session("any", "secret").client("sqs", endpoint_url=endpoint_url, region_name=REGION)
    url: str = client.create_queue(QueueName=f"q{uuid4().hex}")["QueueUrl"]
    client.close()
    return url


async def test_missing_credentials_are_looked_up_with_each_call(s3_url: str, credentials_file: Path) -> None:
    url, calls = queue_url(s3_url), AwsCalls("sqs", AwsEndpoint(REGION, s3_url), 1)
    with pytest.raises(SinkError, match="NoCredentialsError"):
        await calls.call("send_message", QueueUrl=url, MessageBody="event")
    write(credentials_file, secret_canaries.AWS_ACCESS_KEY)
    assert (await calls.call("send_message", QueueUrl=url, MessageBody="event"))["MessageId"]
    await calls.close()


async def test_credentials_with_a_line_end_are_named_and_looked_up_again(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, calls = queue_url(s3_url), AwsCalls("sqs", AwsEndpoint(REGION, s3_url), 1)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{secret_canaries.AWS_SECRET_KEY}\n")
    with pytest.raises(SinkError, match="secret access key begins or ends with a blank or a line end"):
        await calls.call("send_message", QueueUrl=url, MessageBody="event")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret_canaries.AWS_SECRET_KEY)
    assert (await calls.call("send_message", QueueUrl=url, MessageBody="event"))["MessageId"]
    await calls.close()


async def test_refused_credentials_are_looked_up_again(s3_url: str, credentials_file: Path) -> None:
    write(credentials_file, "AKIAOLD")

    def rule(call: Call) -> Refusal | None:
        return Refusal(403, "InvalidClientTokenId") if "AKIAOLD" in call.headers["authorization"] else None

    with s3_proxy(s3_url) as proxy:
        proxy.rule = rule
        calls = AwsCalls("sns", AwsEndpoint(REGION, proxy.endpoint_url), 1)
        for _ in range(2):
            with pytest.raises(SinkError, match="InvalidClientTokenId"):
                await calls.call("list_topics")
        write(credentials_file, secret_canaries.AWS_ACCESS_KEY)
        assert "Topics" in await calls.call("list_topics")
        await calls.close()
