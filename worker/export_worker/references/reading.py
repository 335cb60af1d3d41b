"""Reads what a reference to a secret names."""

import os
from pathlib import Path
from typing import TypeVar

from export_worker.references.aws_secrets import AwsSecrets
from export_worker.references.errors import UnreadableReferenceError
from export_worker.texts.decoding import decode_text

ENV, FILE, AWS = "env:", "file:", "aws-sm:"
SECRET_MAX_BYTES = 16 * 1024
"""A private key has a few KiB. To mask a much longer secret would block the event loop for seconds."""
FILE_CHECK_S = 1.0
"""Seconds between two reads of a file that is in use. Kubernetes exchanges files at any time. A read takes less than a
millisecond."""
AWS_CHECK_S = 300.0
"""Seconds between two reads of a secret of AWS that is in use. AWS charges each read."""

Value = TypeVar("Value", str, bytes)

_aws = AwsSecrets()


def is_reference(text: str) -> bool:
    """Returns whether a setting refers to its value."""
    return text.startswith((ENV, FILE, AWS))


def check_interval_s(text: str) -> float | None:
    """Returns the seconds between two reads of a reference that is in use. None for a value that cannot change."""
    if text.startswith(AWS):
        return AWS_CHECK_S
    return FILE_CHECK_S if is_reference(text) else None


def read_reference(text: str, *, again: bool = False) -> str:
    """Returns the value that a reference names, or the text itself if it is no reference.

    A secret of AWS is read once in the process. Its read may take some seconds.

    Args:
        again: Reads a secret of AWS again that has been read before.

    Raises:
        UnreadableReferenceError: The value does not exist, is empty, or cannot be read.
    """
    if text.startswith(ENV):
        return _checked(text, _variable(text.removeprefix(ENV)))
    if text.startswith(FILE):
        return _file(Path(text.removeprefix(FILE)))
    if text.startswith(AWS):
        return _checked(text, _aws.read(text.removeprefix(AWS), again=again))
    return text


def proxy_variables() -> dict[str, str]:
    """Returns the variables of the process that name proxies, such as `HTTPS_PROXY`. They may contain passwords."""
    return {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}


def _variable(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise UnreadableReferenceError(f"environment variable {name} is not set")
    return value


def _file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(SECRET_MAX_BYTES + 1)
        _checked(str(path), content)
        value = decode_text(content).strip()
    except (OSError, ValueError) as error:
        raise UnreadableReferenceError(f"cannot read {path} ({_reason(error)})") from None
    if not value:
        raise UnreadableReferenceError(f"{path} is empty")
    return value


def _checked(name: str, value: Value) -> Value:
    if len(value) > SECRET_MAX_BYTES:
        raise UnreadableReferenceError(f"{name} has more than {SECRET_MAX_BYTES // 1024} KiB, so it is no secret")
    return value


def _reason(error: OSError | ValueError) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
