"""The exports of a chaos run: every kind of every platform, each with a mark that its operations carry."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from export_worker.simulator.jobs import Job
from support import secret_canaries

PROJECT = "WlGk4Daj"
POLL = {"first_s": 0.2, "max_s": 1.0, "deadline_s": 3600.0}
LIMITS = {"poll": POLL, "max_in_flight": 200, "requests_per_second": 1000}
CONNECTIONS: dict[str, dict[str, Any]] = {
    "gio": {"platform": "growingio", "token": secret_canaries.TOKEN, **LIMITS},
    "rest": {"platform": "growingio-rest", "token": secret_canaries.TOKEN, **LIMITS},
    "ta": {"platform": "thinkingdata", "token": secret_canaries.TOKEN, **LIMITS},
    "sensors": {"platform": "sensorsdata", "token": secret_canaries.TOKEN, "project": "default", **LIMITS},
    "sensorsv3": {"platform": "sensorsdata", "api_key": secret_canaries.TOKEN, "project": "default", **LIMITS},
}
"""Every platform. The token is a canary, so that logs can be searched for it."""
ANALYSES = {"eA1vNt01": "CHARTS", "klGvyp7E": "FUNNELS", "rT3nTn01": "RETENTIONS", "fQ2cyX01": "FREQUENCIES"}
DEADLINE_S = 15
"""The deadline of an export that has one: short enough that some exports miss it during faults."""
FIRST_BASE_TIME = datetime(2000, 1, 1, tzinfo=UTC)

_MARK = re.compile(r"u\d{6}|\d{4}-\d\d-\d\d \d\d:00:00|" + "|".join(ANALYSES))


@dataclass(frozen=True)
class Planned:
    """One export.

    Args:
        number: Counts the exports of a run.
        mark: A text in the arguments of its operations. Analyses have no argument that could be unique, so all exports
            of an analysis share its id as their mark.
        body: The request.
    """

    number: int
    mark: str
    body: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.body["export"]["kind"])

    @property
    def is_packed(self) -> bool:
        return "output" in self.body

    @property
    def has_deadline(self) -> bool:
        return "deadline_s" in self.body


def mark_of(job: Job) -> str:
    """Returns the mark of the export that an operation belongs to."""
    found = _MARK.search(json.dumps(job.arguments))
    return "" if found is None else found[0]


def planned(rng: random.Random, seed: int) -> Iterator[Planned]:
    """Yields the exports of a run, without end. The same seed gives the same exports."""
    number = 0
    while True:
        number += 1
        connection = rng.choice(list(CONNECTIONS))
        mark, export = _export(rng, connection, f"u{number:06d}", number)
        body: dict[str, Any] = {"connection": connection, "export": export, "idempotency_key": f"chaos-{seed}-{number}"}
        if rng.random() < 0.15:
            body["output"] = {"compression": "gzip"}
        if rng.random() < 0.04:
            body["deadline_s"] = DEADLINE_S
        yield Planned(number, mark, body)


def _export(rng: random.Random, connection: str, unique: str, number: int) -> tuple[str, dict[str, Any]]:
    match connection:
        case "gio":
            return _growingio(rng, unique)
        case "rest" if rng.random() < 0.5:
            entity: dict[str, Any] = {"kind": "growingio.user_tag_users", "tag_key": "tag_rfm", "file_format": "json"}
            return unique, entity | {"properties": [unique]}
        case "rest":
            entity = {"kind": "growingio.segment_profile_users", "project_id": PROJECT, "segment_key": "seg_51activity"}
            return unique, entity | {"properties": [unique]}
        case "ta":
            cluster: dict[str, Any] = rng.choice(
                [{"cluster_name": "recent_7_days_consume"}, {"cluster_id": 971, "catalog": "tag"}]
            )
            columns = ["#account_id", unique]
            return unique, {"kind": "thinkingdata.cluster_users", "project_id": 102, "columns": columns, **cluster}
        case _:
            base_time = f"{FIRST_BASE_TIME + timedelta(hours=number):%Y-%m-%d %H:%M:%S}"
            group = rng.choice([42, 43])
            return base_time, {"kind": "sensorsdata.user_group_users", "group_id": group, "base_times": [base_time]}


def _growingio(rng: random.Random, unique: str) -> tuple[str, dict[str, Any]]:
    match rng.choice(["tag", "segment", "analysis"]):
        case "tag":
            return unique, {"kind": "growingio.tag_users", "tag_key": "tag_payment_times", "file_name": unique}
        case "segment":
            segment: dict[str, Any] = {"project_id": PROJECT, "segment_id": "qgQMXnD3", "properties": [unique]}
            return unique, {"kind": "growingio.segment_users", **segment}
        case _:
            analysis = rng.choice(list(ANALYSES))
            kind = {"kind": "growingio.analysis", "project_id": PROJECT, "analysis_type": ANALYSES[analysis]}
            return analysis, {**kind, "analysis_id": analysis}
