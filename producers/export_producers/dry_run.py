"""What would happen to a request, without enqueuing it. Pure."""

from collections.abc import Sequence
from typing import Any

from export_producers.records import Page
from export_worker.contract.dry_run import DryRun, OpenExport, Preview, without_nulls
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Status

EQUAL_MAX = 10
"""Open exports that a dry run lists: enough to see what happens."""


def dry_run_of(
    request: ExportRequest, existing: Status | None, pages: Sequence[Page], platform: Preview | None
) -> DryRun:
    """Returns the result of a dry run.

    Args:
        existing: The export of the same request that has its idempotency key.
        pages: The first page of the open exports of the same connection and kind, by phase.
    """
    equal = [_open(status) for page in pages for status in page.statuses if _is_equal(status, request, platform)]
    return DryRun(
        connection=request.connection,
        kind=request.kind,
        request=without_nulls(request),
        existing=None if existing is None else _open(existing),
        equal=equal[:EQUAL_MAX],
        compared_all=all(page.cursor is None for page in pages),
        platform=platform,
    )


def _is_equal(status: Status, request: ExportRequest, platform: Preview | None) -> bool:
    """Returns whether an export is of the same data with the same output, also if it names the id for our name."""
    asked, ours = status.request, without_nulls(request)
    if asked is None or asked.get("output", {}) != ours.get("output", {}):
        return False
    ids = {} if platform is None else platform.ids
    return asked.get("export") in (ours["export"], _with_ids(ours["export"], ids))


def _with_ids(export: dict[str, Any], ids: dict[str, str]) -> dict[str, Any]:
    """Returns what is exported by its ids instead of by its names."""
    names = {field.removesuffix("_id") + "_name" for field in ids}
    return {name: value for name, value in export.items() if name not in names} | ids


def _open(status: Status) -> OpenExport:
    return OpenExport(export_id=status.export_id, phase=status.phase, created_at=status.created_at)
