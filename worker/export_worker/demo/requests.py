"""One request for every kind of export, out of the simulator's world."""

from itertools import cycle, islice
from typing import Any

from export_worker.contract.request import ExportRequest

CONNECTION = "gio"
_PROJECT = "WlGk4Daj"


def _analysis(analysis_id: str, analysis_type: str) -> dict[str, Any]:
    return {
        "kind": "growingio.analysis",
        "project_id": _PROJECT,
        "analysis_id": analysis_id,
        "analysis_type": analysis_type,
    }


EXPORTS: tuple[dict[str, Any], ...] = (
    {"kind": "growingio.tag_users", "tag_key": "tag_payment_times"},
    {"kind": "growingio.tag_users", "tag_id": "mgGJj3GA", "charset": "UTF-16LE", "detail_export": True},
    {"kind": "growingio.segment_users", "project_id": _PROJECT, "segment_id": "qgQMXnD3"},
    _analysis("eA1vNt01", "CHARTS"),
    _analysis("klGvyp7E", "FUNNELS"),
    _analysis("rT3nTn01", "RETENTIONS"),
    _analysis("fQ2cyX01", "FREQUENCIES"),
)


def demo_requests(count: int) -> list[ExportRequest]:
    """At least one request of every kind, and `count` in all."""
    exports = islice(cycle(EXPORTS), max(count, len(EXPORTS)))
    return [
        ExportRequest.model_validate(
            {"connection": CONNECTION, "export": export, "metadata": {"demo": str(number)}}, strict=False
        )
        for number, export in enumerate(exports, start=1)
    ]
