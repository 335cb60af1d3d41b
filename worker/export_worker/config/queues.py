"""The addresses of Redis and the namespaces, and `[gateway.queues.NAME]`: several of them behind one gateway."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from export_worker.config.section import Section
from export_worker.contract.wording import Pattern
from export_worker.redis.sentinel import is_sentinel_url

QUEUES_MAX = 16
"""Queues of one gateway. Each page asks all of them."""
_DATABASE = re.compile(r"(/[0-9]*)?")
"""The path of the address of Redis: none, or the number of the database."""

Namespace = Annotated[
    str,
    Field(max_length=64),
    Pattern(
        r"^([A-Za-z0-9_.-]+|[A-Za-z0-9_.-]*\{[A-Za-z0-9_.-]+\}[A-Za-z0-9_.-]*)$",
        "must have 1 to 64 characters: letters, digits, _, . and -; for a Redis cluster, one part in braces: {exports}",
    ),
]


def _checked_url(url: str) -> str:
    """Refuses text that is not a Redis URL. The message does not show it: it may contain a password."""
    try:
        parts = urlsplit(url)
        # After a `/` or `#` of a password, the rest of it would be read as database or fragment, and shown in errors.
        is_network = parts.scheme in {"redis", "rediss"} and _DATABASE.fullmatch(parts.path) and not parts.fragment
        known = is_sentinel_url(url) or ((is_network or parts.scheme == "unix") and parts.port != 0)
    except ValueError:
        known = False
    if not known:
        allowed = "redis://, rediss://, unix:// or sentinel://, such as redis://127.0.0.1:6379/0"
        advice = "special characters in the password must be percent-encoded"
        raise PydanticCustomError("redis_url", f"must be {allowed}; {advice}")
    return url


RedisUrl = Annotated[str, AfterValidator(_checked_url), Field(repr=False)]
QueueName = Annotated[
    str, Pattern(r"^[A-Za-z0-9_-]{1,64}$", "the name must have 1 to 64 characters: letters, digits, _ and -")
]


class GatewayQueue(Section):
    """`[gateway.queues.NAME]`: one of several queues: a namespace with its own workers, on its own Redis."""

    redis_url: RedisUrl
    """The address of its Redis, as for `redis_url`. Required."""
    namespace: Namespace = "exports"
    """Its namespace, as for `namespace`: at most 64 characters. Default `exports`."""
    connections: tuple[str, ...] = ()
    """Connections whose requests go to this queue, whatever queues have announced them. Default: none.

    Requests for any other connection go to the queue whose workers have announced it. State a connection here after
    its workers have moved from another queue, which still knows it."""


def checked_queues(queues: dict[str, GatewayQueue]) -> dict[str, GatewayQueue]:
    """Returns the queues if no two of them are the same, and none claims the connection of another.

    Raises:
        ValueError: Two do.
    """
    names: dict[tuple[str, str], str] = {}
    owners: dict[str, str] = {}
    for name, queue in queues.items():
        same = names.setdefault((queue.redis_url, queue.namespace), name)
        if same != name:
            raise ValueError(f"{same} and {name} have the same redis_url and namespace")
        for connection in queue.connections:
            owner = owners.setdefault(connection, name)
            if owner != name:
                raise ValueError(f"{owner} and {name} both state the connection {connection!r}; it belongs to one")
    return queues


GatewayQueues = Annotated[dict[QueueName, GatewayQueue], Field(max_length=QUEUES_MAX), AfterValidator(checked_queues)]
