"""Secrets of AWS Secrets Manager, against moto's server."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from export_worker.credentials import Redactor, reveal
from export_worker.errors import ConfigError
from export_worker.references.aws_secrets import REREAD_S, AwsSecrets
from export_worker.secrets.secret import Secret

SETTING = "connections.gio.token"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    try:
        host, port = moto.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        moto.stop()


@pytest.fixture
def aws(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Points boto3's own chain to the server. Returns a client."""
    for name, value in {
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": server,
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    return boto3.client("secretsmanager")


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_secret_is_read_by_name_and_by_field_of_its_json(aws: Any) -> None:
    arn = aws.create_secret(Name="plain", SecretString=" value-1\n")["ARN"]
    aws.create_secret(Name="team/json", SecretString='{"token": "value-2", "port": 1}')
    aws.create_secret(Name="binary", SecretBinary=b"value-3")
    secrets = AwsSecrets()
    assert [secrets.read(name) for name in ("plain", arn, "team/json#token", "binary")] == [
        "value-1",
        "value-1",
        "value-2",
        "value-3",
    ]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("unknown", "aws-sm:unknown: AWS answered ResourceNotFoundException; check the name and the IAM permissions"),
        ("object#port", "aws-sm:object#port: the secret has no text of this name"),
        ("object#none", "aws-sm:object#none: the secret has no text of this name"),
        ("text#token", "aws-sm:text#token: the secret is not JSON"),
        ("raw", "aws-sm:raw: the secret is binary and no text in UTF-8"),
    ],
)
def test_secret_that_cannot_be_used_is_named_and_not_shown(aws: Any, reference: str, expected: str) -> None:
    for name, value in (("object", '{"port": 1, "other": "canary"}'), ("text", "canary")):
        if not aws.list_secrets(Filters=[{"Key": "name", "Values": [name]}])["SecretList"]:
            aws.create_secret(Name=name, SecretString=value)
    if reference == "raw":
        aws.create_secret(Name="raw", SecretBinary=b"\xff\xfe canary")
    with pytest.raises(ConfigError) as caught:
        reveal(SecretStr(f"aws-sm:{reference}"), SETTING)
    assert str(caught.value) == f"{SETTING}: {expected}"


def test_secret_is_read_once_until_it_is_asked_for_again(aws: Any) -> None:
    aws.create_secret(Name="cached", SecretString="value-1")
    clock = Clock()
    secrets = AwsSecrets(clock)
    assert secrets.read("cached") == "value-1"
    aws.put_secret_value(SecretId="cached", SecretString="value-2")
    assert secrets.read("cached", again=True) == "value-1", "a platform that refuses each call causes no call to AWS"
    clock.now_s += REREAD_S
    assert secrets.read("cached") == "value-1"
    assert secrets.read("cached", again=True) == "value-2"


def test_failed_read_is_repeated_when_the_secret_is_needed_again(aws: Any) -> None:
    clock = Clock()
    secrets = AwsSecrets(clock)
    with pytest.raises(Exception, match="ResourceNotFoundException"):
        secrets.read("late")
    aws.create_secret(Name="late", SecretString="value-1")
    clock.now_s += REREAD_S
    assert secrets.read("late") == "value-1"


@pytest.mark.usefixtures("aws")
def test_server_that_cannot_be_reached_is_named_with_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match=rf"^{SETTING}: aws-sm:far: AWS Secrets Manager cannot be called \(Endpoint"):
        reveal(SecretStr("aws-sm:far"), SETTING)


async def test_rotated_secret_is_used_after_a_refusal_and_masked(aws: Any) -> None:
    aws.create_secret(Name="rotated", SecretString='{"token": "value-1"}')
    redactor = Redactor()
    secret = Secret(SecretStr("aws-sm:rotated#token"), SETTING, redactor)
    aws.put_secret_value(SecretId="rotated", SecretString='{"token": "value-2"}')
    while await secret.reread() != "value-2":
        pass
    assert redactor.text("value-1 value-2") == "*** ***"
