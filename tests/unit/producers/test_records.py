"""The records of the producer side: what is stored once, and what a reader gets."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from export_producers.records import Offer, Restart, first_status, read_status, retried
from export_worker.contract.redis_keys import Keys
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Phase, Status
from support.redis_site import request_of

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
KEYS = Keys("exports")
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def stored(arguments: dict[str, Any]) -> tuple[bytes, bytes]:
    """Returns the status and the request that a script stores."""
    return str(arguments["status"]).encode(), str(arguments["request"]).encode()


def test_status_is_read_with_the_request_that_is_stored_beside_it() -> None:
    request: ExportRequest = request_of(metadata={"order": "42"})
    status, beside = stored(Offer(request, "e1", NOW).arguments(KEYS))
    assert "request" not in json.loads(status)
    read = read_status([status, None, beside, b"ci", None])
    assert read.requested_by == "ci"
    assert "requested_by" not in json.loads(status)
    assert read.request == json.loads(beside)
    assert read_status([status, None, None, None, None]).request is None


@pytest.mark.parametrize(
    ("stored_trace", "trace_id"),
    [
        (f'{{"traceparent":"{PARENT}","tracestate":"a=b"}}'.encode(), PARENT[3:35]),
        (f'{{"traceparent":"00-{"0" * 32}-00f067aa0ba902b7-01"}}'.encode(), None),
        (b'{"traceparent":5}', None),
        (b"\xff{", None),
        (None, None),
    ],
)
def test_trace_id_is_read_from_the_context_beside_the_status(stored_trace: bytes | None, trace_id: str | None) -> None:
    status, request = stored(Offer(request_of(), "e1", NOW).arguments(KEYS))
    read = read_status([status, None, request, b"ci", stored_trace])
    assert read.model_dump().get("trace_id") == trace_id
    start, after = retried(read.model_copy(update={"phase": Phase.FAILED}), None, NOW)
    assert "trace_id" not in json.loads(str(Restart(read, after, 1, start, NOW).arguments(KEYS)["status"]))


def test_restart_does_not_store_the_request_in_the_status() -> None:
    ended = first_status(request_of(), "e1", NOW).model_copy(
        update={"phase": Phase.FAILED, "request": {"connection": "gio", "export": {"kind": "growingio.tag_users"}}}
    )
    before = Status.model_validate(ended.model_dump())
    start, after = retried(before, None, NOW)
    assert after.request == before.request
    assert "request" not in json.loads(str(Restart(before, after, 1, start, NOW).arguments(KEYS)["status"]))
