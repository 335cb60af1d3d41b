"""What users read when Redis fails: whether it is unreachable, or why it refuses, and what to do."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from export_worker.credentials import Redactor, url_passwords
from export_worker.errors import ConfigError, ServiceUnreachableError
from export_worker.redis.sentinel import is_sentinel_url, parse_sentinel_url
from export_worker.texts.reasons import system_reason


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a Redis that answers does not do what it is asked for.

    Args:
        says: A clause that follows "Redis".
        fix: What to do.
    """

    says: str
    fix: str


REDIRECTED = "redirected to another node"
"""The first words of the error of a client that no node of a cluster has accepted."""
_CLUSTER = Refusal(
    "runs in cluster mode, and the namespace has no hash tag",
    'put a part of the namespace in braces everywhere, for example namespace = "{exports}"',
)
_CLUSTER_CHANGES = Refusal("is a cluster that has no owner for a key now", "wait for the end of a fail-over or a move")
_CREDENTIALS = Refusal("refuses the user or the password", "correct redis_url (EXPORT_REDIS_URL)")
REFUSALS = {
    "READONLY": Refusal(
        "is a read-only replica and saves nothing",
        "set redis_url (EXPORT_REDIS_URL) to the primary, or wait for the end of a fail-over",
    ),
    "OOM": Refusal("has no memory left and saves nothing", "raise maxmemory, or reduce worker.retention_s"),
    "NOPERM": Refusal(
        "does not permit a command or a key to its user", "give the user the permissions that k8s/README.md lists"
    ),
    "CROSSSLOT": _CLUSTER,
    "MOVED": _CLUSTER,
    "CLUSTERDOWN": _CLUSTER_CHANGES,
    "ASK": _CLUSTER_CHANGES,
    "TRYAGAIN": _CLUSTER_CHANGES,
    REDIRECTED: Refusal(
        "is a cluster whose nodes redirect to each other",
        "wait for the end of a fail-over or a move, or compare the answers of the nodes to CLUSTER SLOTS",
    ),
    "SELECT is not allowed": Refusal(
        "is a cluster, which has only database 0", "remove the number at the end of redis_url (EXPORT_REDIS_URL)"
    ),
    "MISCONF": Refusal("cannot write to its disk and saves nothing", "free disk space, and read the log of Redis"),
    "NOREPLICAS": Refusal(
        "has too few replicas and saves nothing", "start the replicas, or reduce min-replicas-to-write"
    ),
    "MASTERDOWN": Refusal("is a replica that has lost its primary", "wait for the end of a fail-over"),
    "LOADING": Refusal("still loads its data", "retry when it has started"),
    "BUSY": Refusal("runs a script of another client", "retry later, or end the script with SCRIPT KILL"),
    "DB index is out of range": Refusal(
        "has no database with this number", "correct the number at the end of redis_url (EXPORT_REDIS_URL), e.g. /0"
    ),
    "NOAUTH": _CREDENTIALS,
    "WRONGPASS": _CREDENTIALS,
}
"""Refusals by the code, or the first words, of the error of Redis."""
CLUSTER_CHANGES = frozenset({"CLUSTERDOWN", "ASK", "TRYAGAIN", REDIRECTED})
"""Refusals of a cluster that moves a key, or elects another owner."""
_OTHER = Refusal("refuses a command", "run export-worker doctor, which checks Redis")
_CODES: dict[type[RedisError], str] = {
    ReadOnlyError: "READONLY",
    OutOfMemoryError: "OOM",
    NoPermissionError: "NOPERM",
    BusyLoadingError: "LOADING",
    AuthenticationError: "NOAUTH",
}
"""redis-py removes the code from the messages of these errors."""
_ARGUMENTS = re.compile(r",? ?with args beginning with.*", re.DOTALL)
# Redis 6.2 puts the code of an error in a script behind the position in the script.
_CODE_IN_TEXT = re.compile(rf"(?:^|[\s-])({'|'.join(REFUSALS)})\b")


def refusal_code(error: Exception) -> str | None:
    """Returns the code with which Redis refused a command; None if Redis gave no code that is known here."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    found = _CODE_IN_TEXT.search(str(error)) if isinstance(error, RedisError) else None
    return found[1] if found else None


def is_unreachable(error: Exception) -> bool:
    """Whether Redis did not answer. Otherwise it answered, and refused."""
    return isinstance(error, RedisConnectionError | RedisTimeoutError | OSError) and refusal_code(error) is None


def outage_event(error: Exception) -> str:
    """Returns the name of the log event for a failed call. Redis that loads its data starts, and refuses nothing."""
    is_down = is_unreachable(error) or refusal_code(error) == "LOADING"
    return "redis.unreachable" if is_down else "redis.refused"


def redis_failure(redis_url: str, error: RedisError | OSError) -> ServiceUnreachableError:
    """Returns the error for users. It names the address, and no part of the URL that may be a password."""
    address, reason = redis_address(redis_url), _masked(str(error), redis_url) or "it does not answer in time"
    if is_unreachable(error):
        return ServiceUnreachableError(
            f"cannot reach Redis at {address} ({reason}); is it running, and is redis_url (EXPORT_REDIS_URL) right?"
        )
    refusal = _refusal(error)
    return ServiceUnreachableError(f"Redis at {address} {refusal.says} ({reason}); {refusal.fix}")


def _masked(reason: str, redis_url: str) -> str:
    """Returns an error of Redis without passwords. A server may repeat the arguments of AUTH, and cut them."""
    redactor = Redactor()
    for password in url_passwords(redis_url):
        redactor.add(password)
    return redactor.excerpt(_ARGUMENTS.sub("", system_reason(reason)))


def _refusal(error: Exception) -> Refusal:
    code = refusal_code(error)
    return _OTHER if code is None else REFUSALS[code]


def redis_address(redis_url: str) -> str:
    """Returns the address of Redis for messages, without any part of the URL that may be a password.

    Raises:
        ConfigError: The URL is malformed.
    """
    if is_sentinel_url(redis_url):
        try:
            return parse_sentinel_url(redis_url).address
        except ValueError as error:
            raise ConfigError(f"redis_url: {error}") from None
    try:
        parts = urlsplit(redis_url)
        host, port = parts.hostname or "localhost", parts.port or 6379
    except ValueError:
        # Python's message quotes the text that it parsed as the port, which may be a part of the password.
        advice = "is malformed; percent-encode the special characters of its password"
        raise ConfigError(f"redis_url: {advice}") from None
    if parts.scheme == "unix":
        return parts.path
    database = parts.path if parts.path[1:].isdecimal() else ""
    return f"[{host}]:{port}{database}" if ":" in host else f"{host}:{port}{database}"
