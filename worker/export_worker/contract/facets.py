"""The facets of exports that have indexes: what a list can be filtered by without reading every record."""

from typing import Literal, Protocol, get_args

from export_worker.contract.phase import Phase

Facet = Literal["connection", "kind", "error", "requested_by"]
"""Together the facets have some 16,000 different values; see `lua/indexes.lua`. Values of metadata have digests."""

FACETS: tuple[Facet, ...] = get_args(Facet)

UNKNOWN = "?"
"""The value of a facet that a record does not have: it is damaged, or an earlier version accepted it."""


class Error(Protocol):
    """What an export has failed with. The contract's model of it needs pydantic, which completion does not import."""

    @property
    def code(self) -> str:
        """The error code."""


def facets_of(phase: Phase, connection: str, kind: str, error: Error | None) -> dict[Facet, str]:
    """Returns the facets of an export that a worker knows. Only a failed export has the facet `error`: the code."""
    facets: dict[Facet, str] = {"connection": connection, "kind": kind}
    code = error_facet(phase, error)
    return facets if code is None else facets | {"error": code}


def error_facet(phase: Phase, error: Error | None) -> str | None:
    """Returns the error code by which an export is listed; None unless it has failed."""
    return error.code if phase is Phase.FAILED and error is not None else None
