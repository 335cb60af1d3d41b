"""Who calls the gateway, and what this caller may do. Pure, except for reading the request."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from aiohttp import web

from export_producers.gateway.problems import ProblemError


class Role(StrEnum):
    """What a caller may do. Each role may do what the roles before it may do."""

    VIEWER = "viewer"
    SERVICE = "service"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, least: "Role") -> bool:
        """Returns whether this role may do what `least` may do."""
        order = list(Role)
        return order.index(self) >= order.index(least)


CallerKind = Literal["anonymous", "api_key", "key", "person"]
"""`api_key` is one of the setting `api_keys`, `key` a named one, and `person` a user whom a proxy has authenticated."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller.

    Args:
        name: The name of the key, or of the user.
        connections: The connections that the caller may see and use; None for all.
        is_viewer: Whether the caller is a viewer beside its role, by another group.
    """

    name: str
    role: Role
    connections: frozenset[str] | None = None
    kind: CallerKind = "key"
    is_viewer: bool = False

    @property
    def has_console(self) -> bool:
        """Whether the caller may use the console. The role `service` alone is for programs."""
        return self.role is not Role.SERVICE or self.is_viewer

    @property
    def id(self) -> str:
        """Identifies the caller. A user may have the name of a key."""
        return f"{self.kind}:{self.name}"

    @property
    def owner(self) -> str | None:
        """Whose idempotency keys the caller uses; None for those that every caller without a name shares.

        A key of `api_keys` is replaced by another one in the list, which must find the same exports.
        """
        return None if self.kind in {"anonymous", "api_key"} else self.id

    def may_use(self, connection: str) -> bool:
        """Returns whether the caller may see and use a connection."""
        return self.connections is None or connection in self.connections


ANONYMOUS = Principal("anonymous", Role.ADMIN, kind="anonymous")
"""The caller of a gateway without keys, which only programs of its own machine can reach."""
PRINCIPAL = web.RequestKey("principal", Principal)
"""The caller of a request to `/v1`."""


def allowed_connections(request: web.Request) -> frozenset[str] | None:
    """Returns the connections that the caller may see; None for all. Lists and totals have these only."""
    return request[PRINCIPAL].connections


def require(request: web.Request, connection: str) -> None:
    """Checks that the caller may use a connection, which may not exist.

    Raises:
        ProblemError: The caller may not. The message names only what the caller may use.
    """
    principal = request[PRINCIPAL]
    if principal.connections is not None and connection not in principal.connections:
        names = ", ".join(sorted(principal.connections))
        raise forbidden(f"{principal.name} may not use this connection; allowed: {names}")


def forbidden(detail: str) -> ProblemError:
    """Returns the error for a call that the caller may not make."""
    return ProblemError(403, "forbidden", detail)
