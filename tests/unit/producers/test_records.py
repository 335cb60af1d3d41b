"""The records of the producer side: what is stored once, and what a reader gets."""

import json
from datetime import UTC, datetime
from typing import Any

from export_producers.records import Offer, Restart, first_status, read_status, retried
from export_worker.contract.redis_keys import Keys
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Phase, Status
from support.redis_site import request_of

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
KEYS = Keys("exports")


def stored(arguments: dict[str, Any]) -> tuple[bytes, bytes]:
    """Returns the status and the request that a script stores."""
    return str(arguments["status"]).encode(), str(arguments["request"]).encode()


def test_status_is_read_with_the_request_that_is_stored_beside_it() -> None:
    request: ExportRequest = request_of(metadata={"order": "42"})
    status, beside = stored(Offer(request, "e1", NOW).arguments(KEYS))
    assert "request" not in json.loads(status)
    read = read_status(status, None, (), beside, b"ci")
    assert read.requested_by == "ci"
    assert "requested_by" not in json.loads(status)
    assert read.request == json.loads(beside)
    assert read_status(status, None).request is None


def test_restart_does_not_store_the_request_in_the_status() -> None:
    ended = first_status(request_of(), "e1", NOW).model_copy(
        update={"phase": Phase.FAILED, "request": {"connection": "gio", "export": {"kind": "growingio.tag_users"}}}
    )
    before = Status.model_validate(ended.model_dump())
    start, after = retried(before, None, NOW)
    assert after.request == before.request
    assert "request" not in json.loads(str(Restart(before, after, 1, start, NOW).arguments(KEYS)["status"]))
