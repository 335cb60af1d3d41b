"""The facets of exports that have indexes: what a list can be filtered by without reading every record."""

from typing import Literal, Protocol, get_args

from export_worker.contract.phase import Phase

Facet = Literal["connection", "kind", "error", "place"]
"""A facet has few different values. A value that only a few exports share, such as one of metadata, needs another kind
of key: each removal of expired exports visits every index."""

FACETS: tuple[Facet, ...] = get_args(Facet)


class Error(Protocol):
    """What an export has failed with. The contract's model of it needs pydantic, which completion does not import."""

    @property
    def code(self) -> str:
        """The error code."""


def facets_of(phase: Phase, connection: str, kind: str, error: Error | None) -> dict[Facet, str]:
    """Returns the value of each facet of an export. Only a failed export has the facet `error`: the code."""
    facets: dict[Facet, str] = {"connection": connection, "kind": kind, "place": place_of(connection, phase)}
    return facets | {"error": error.code} if phase is Phase.FAILED and error is not None else facets


def place_of(connection: str, phase: Phase) -> str:
    """Returns the facet `place`. The sizes of its indexes are the numbers of exports by connection and phase."""
    return f"{connection}:{phase}"
