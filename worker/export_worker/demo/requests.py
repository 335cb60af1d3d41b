"""Requests for every built-in kind of export and for two recipes. The exported entities exist in the simulator."""

import json
from itertools import cycle, islice
from typing import Any

from export_worker.contract.parsing import parse_request
from export_worker.contract.request import ExportRequest

_PROJECT = "WlGk4Daj"


def _analysis(analysis_id: str, analysis_type: str) -> dict[str, Any]:
    return {
        "kind": "growingio.analysis",
        "project_id": _PROJECT,
        "analysis_id": analysis_id,
        "analysis_type": analysis_type,
    }


GROWINGIO: tuple[dict[str, Any], ...] = (
    {"kind": "growingio.tag_users", "tag_key": "tag_payment_times"},
    {"kind": "growingio.tag_users", "tag_id": "mgGJj3GA", "charset": "UTF-16LE", "detail_export": True},
    {"kind": "growingio.segment_users", "project_id": _PROJECT, "segment_id": "qgQMXnD3"},
    _analysis("eA1vNt01", "CHARTS"),
    _analysis("klGvyp7E", "FUNNELS"),
    _analysis("rT3nTn01", "RETENTIONS"),
    _analysis("fQ2cyX01", "FREQUENCIES"),
)
GROWINGIO_REST: tuple[dict[str, Any], ...] = (
    {"kind": "growingio.segment_profile_users", "project_id": _PROJECT, "segment_key": "seg_51activity"},
    {"kind": "growingio.user_tag_users", "tag_key": "tag_rfm", "file_format": "json"},
)
THINKINGDATA: tuple[dict[str, Any], ...] = (
    {"kind": "thinkingdata.cluster_users", "project_id": 102, "cluster_name": "recent_7_days_consume"},
    {
        "kind": "thinkingdata.cluster_users",
        "project_id": 102,
        "cluster_id": 971,
        "catalog": "tag",
        "file_format": "json",
    },
)
SENSORSDATA: tuple[dict[str, Any], ...] = ({"kind": "sensorsdata.user_group_users", "group_id": 42},)
HORIZON: tuple[dict[str, Any], ...] = (
    {"kind": "sensorsdata.segment_users", "segment_name": "user_segment_vip"},
    {"kind": "sensorsdata.tag_users", "tag_name": "user_tag_level", "file_format": "json"},
)

RECIPES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("amplitude", {"kind": "amplitude.cohort_users", "cohort_id": "jgx4kl8"}),
    ("auth0", {"kind": "auth0.users", "connection_id": "con_0000000000000001", "user_fields": ["user_id", "email"]}),
)
"""Exports of recipes that come with export-worker, each with its connection, as in `EXPORTS`."""

EXPORTS: tuple[tuple[str, dict[str, Any]], ...] = (
    *(
        (connection, export)
        for connection, exports in (
            ("gio", GROWINGIO),
            ("gio-rest", GROWINGIO_REST),
            ("ta", THINKINGDATA),
            ("sensors", SENSORSDATA),
            ("sensors-v3", SENSORSDATA),
            ("horizon", HORIZON),
        )
        for export in exports
    ),
    *RECIPES,
)
"""Pairs: the name of a connection in the demo's configuration, and an export from this connection."""

CONNECTIONS: dict[str, dict[str, str]] = {
    "gio": {"platform": "growingio", "token": "env:DEMO_TOKEN"},
    "gio-rest": {"platform": "growingio-rest", "token": "env:DEMO_TOKEN"},
    "ta": {"platform": "thinkingdata", "token": "env:DEMO_TOKEN"},
    "sensors": {"platform": "sensorsdata", "token": "env:DEMO_TOKEN", "project": "default"},
    "sensors-v3": {"platform": "sensorsdata", "api_key": "env:DEMO_TOKEN", "project": "default"},
    "horizon": {"platform": "sensorsdata", "api": "horizon", "api_key": "env:DEMO_TOKEN", "project": "default"},
    "amplitude": {
        "platform": "recipe",
        "recipe": "amplitude",
        "api_key": "env:DEMO_API_KEY",
        "client_secret": "env:DEMO_TOKEN",
    },
    "auth0": {"platform": "recipe", "recipe": "auth0", "token": "env:DEMO_TOKEN"},
}
"""The settings of each connection without its address. The secret is a reference, as in a real configuration."""

ROUND_KEY = "weather"
"""The key in the metadata of each export whose value is the name of the round."""
GOOD, FLAKY = "good", "flaky"
"""The names of the two rounds. In the first, the platforms work. In the second, the platforms fail some calls."""


def demo_requests(count: int, round_name: str) -> list[ExportRequest]:
    """Returns `count` requests, or more if fewer would leave out a kind of export.

    Args:
        count: The number of requests.
        round_name: The name of the round. It is part of the metadata, so each status contains it.
    """
    exports = islice(cycle(EXPORTS), max(count, len(EXPORTS)))
    return [
        parse_request(json.dumps({"connection": connection, "export": export, "metadata": {ROUND_KEY: round_name}}))
        for connection, export in exports
    ]
