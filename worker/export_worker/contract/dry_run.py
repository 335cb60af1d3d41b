"""The answer to a dry run: what would happen to a request, without enqueuing it."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from export_worker.contract.model import Model, Timestamp
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Phase, RequestDocument


class _Answer(Model):
    model_config = ConfigDict(extra="ignore", strict=False)


class Preview(_Answer):
    """What the platform has of an export before it is submitted. A field is null if the platform does not state it."""

    found: bool | None = None
    """Whether the platform lists what is to be exported. The credential may not see everything."""
    name: str | None = None
    """The platform's name of what is to be exported."""
    ids: dict[str, str] = {}
    """Ids that the names in the request stand for, by field, such as `segment_id`."""
    users: Annotated[int, Field(ge=0)] | None = None
    """The number of users, as of the platform's last computation."""


class OpenExport(_Answer):
    """An open export."""

    export_id: str
    """The id of the export."""
    phase: Phase
    """Its phase."""
    created_at: Timestamp
    """When it was accepted."""


class DryRun(_Answer):
    """A valid request that was not enqueued."""

    dry_run: Literal[True] = True
    """Nothing was enqueued."""
    connection: str
    """The connection of the request."""
    kind: str
    """The kind of the export."""
    request: RequestDocument
    """The request with its defaults, as it would be stored."""
    existing: OpenExport | None = None
    """The export that has the idempotency key already. The request would return this export and start no other one."""
    equal: list[OpenExport] = []
    """Open exports of the same data with the same output, whatever their metadata; at most ten, the newest first."""
    compared_all: bool = True
    """Whether all open exports of the connection and kind were compared, or only the newest 1,000 of each phase."""
    platform: Preview | None = None
    """What the platform has; null if it was not asked, because its connection or package is missing here."""


PreviewCall = Callable[[ExportRequest], Awaitable[Preview | None]]
"""Asks the platform of a request. Returns None if this process cannot."""


def without_nulls(request: ExportRequest) -> dict[str, Any]:
    """Returns a request as it is stored."""
    document: dict[str, Any] = request.model_dump(mode="json", exclude_none=True)
    return document
