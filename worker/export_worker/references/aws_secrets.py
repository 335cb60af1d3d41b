"""Reads secrets of AWS Secrets Manager, with the credentials and the region of boto3's own chain."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

from export_worker.references.errors import UnreadableReferenceError

TIMEOUT_S = 5.0
"""For one connection and for one answer. A secret is needed before a process or a connection can start."""
ATTEMPTS = 2
"""Calls for one read. The next read follows when the secret is needed again."""
REREAD_S = 1.0
"""Seconds for which an answer is kept after a platform has refused its value. So a platform that refuses all values
does not cause a call to AWS with each of its calls."""
SECRET_MAX_CHARACTERS = 64 * 1024
"""AWS stores at most 65,536 bytes."""


@dataclass(frozen=True, slots=True, repr=False)
class _Answer:
    """The answer of one read: the text of the secret, or why there is none."""

    read_s: float
    text: str = ""
    problem: str = ""


class AwsSecrets:
    """The secrets that this process has read. It can be used by several threads.

    Args:
        clock: Monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: dict[str, _Answer] = {}
        self._lock = Lock()

    def read(self, reference: str, *, again: bool = False) -> str:
        """Returns a secret.

        Args:
            reference: `NAME`, or `NAME#KEY` for a field of a secret that is a JSON object. The name may be an ARN.
            again: Whether to read a secret again that has been read. One call serves all threads that wait for it.

        Raises:
            UnreadableReferenceError: AWS returns no such secret, or cannot be reached.
        """
        name, _, key = reference.partition("#")
        with self._lock:
            answer = self._answers.get(name)
            is_recent = answer is not None and self._clock() - answer.read_s < REREAD_S
            if answer is None or not (is_recent or (answer.text and not again)):
                answer = self._answers[name] = self._fetched(name)
        if answer.problem:
            raise UnreadableReferenceError(f"aws-sm:{name}: {answer.problem}")
        return _field(name, answer.text, key) if key else answer.text

    def _fetched(self, name: str) -> _Answer:
        try:
            text = _fetch(name)
        except UnreadableReferenceError as error:
            return _Answer(self._clock(), problem=str(error))
        return _Answer(self._clock(), text)


def _fetch(name: str) -> str:
    try:
        # Few configurations have such references, and boto3 is not part of the base install.
        import boto3  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    except ImportError:
        raise UnreadableReferenceError("needs boto3, from the extra worker, gateway or trigger") from None
    options = Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"total_max_attempts": ATTEMPTS})
    try:
        client = boto3.session.Session().client("secretsmanager", config=options)
        return _text(client.get_secret_value(SecretId=name))
    except ClientError as error:
        # The message may quote the request. The code names the problem.
        code = str(error.response.get("Error", {}).get("Code", ""))[:64]
        raise UnreadableReferenceError(f"AWS answered {code}; check the name and the IAM permissions") from None
    except (BotoCoreError, OSError, ValueError) as error:
        what = f"AWS Secrets Manager cannot be called ({type(error).__name__})"
        raise UnreadableReferenceError(f"{what}; check the AWS_ variables and the network") from None


def _text(answer: dict[str, Any]) -> str:
    value = answer.get("SecretString")
    if value is None:
        try:
            value = bytes(answer.get("SecretBinary", b"")).decode()
        except ValueError:
            raise UnreadableReferenceError("the secret is binary and no text in UTF-8") from None
    value = str(value).strip()
    if not value or len(value) > SECRET_MAX_CHARACTERS:
        raise UnreadableReferenceError(f"the secret must have 1 to {SECRET_MAX_CHARACTERS} characters")
    return value


def _field(name: str, text: str, key: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise UnreadableReferenceError(f"aws-sm:{name}#{key}: the secret is not JSON") from None
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, str) or not found:
        raise UnreadableReferenceError(f"aws-sm:{name}#{key}: the secret has no text of this name")
    return found
