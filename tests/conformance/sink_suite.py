"""The conformance suite of sinks: what every sink must do, whichever service it delivers to."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event

from export_worker.contract.event import Event
from export_worker.contract.request import ExportRequest, GrowingioTagUsers
from export_worker.lifecycle.export import Failed, accepted
from export_worker.sinks.base import Checking, Sink, SinkError
from support import secret_canaries
from support.events import event_of


def new_event() -> Event:
    """Returns the event of a failed export with a new id."""
    now = datetime.now(UTC)
    request = ExportRequest(connection="gio", export=GrowingioTagUsers(tag_key="t"), metadata={"a": "日本"})
    export = accepted(uuid4().hex, request, now)
    return event_of(export.model_copy(update={"state": Failed(finished_at=now)}), "exports")


def check_cloudevent(text: str) -> str:
    """Parses an event with the CloudEvents library, checks it, and returns its id."""
    event = from_structured_event(HTTPMessage({"content-type": "application/cloudevents+json"}, text.encode()))
    assert event.get_type() == "export.failed"
    assert event.get_source() == "/export-worker/exports"
    data = event.get_data()
    assert isinstance(data, dict)
    assert event.get_subject() == data["export_id"]
    return event.get_id()


@dataclass
class Bench:
    """A sink and the service that it delivers to.

    Args:
        sink: Delivers to the service.
        received: Returns the events that have arrived since the last call, in any order.
        broken: A sink of the same kind whose destination does not exist.
    """

    sink: Sink
    received: Callable[[], Awaitable[list[str]]]
    broken: Sink
    seen: list[str] = field(default_factory=list)

    async def until(self, count: int, timeout_s: float = 30.0) -> list[str]:
        """Waits until this many events have arrived, and returns all that have."""
        async with asyncio.timeout(timeout_s):
            while len(self.seen) < count:
                self.seen += await self.received()
                await asyncio.sleep(0.02)
        return self.seen


class SinkSuite:
    """Base class of the tests of each sink. A subclass provides the fixture `bench`."""

    async def test_delivered_event_arrives_unchanged(self, bench: Bench) -> None:
        event = new_event()
        await bench.sink.deliver(event.id, event.model_dump_json())
        (received,) = await bench.until(1)
        assert json.loads(received) == json.loads(event.model_dump_json())
        assert check_cloudevent(received) == event.id

    async def test_event_delivered_twice_has_the_same_id(self, bench: Bench) -> None:
        event, marker = new_event(), new_event()
        for sent in (event, event, marker):
            await bench.sink.deliver(sent.id, sent.model_dump_json())
        async with asyncio.timeout(30):
            # A service that removes duplicates by their id may store only one.
            while marker.id not in (ids := [check_cloudevent(text) for text in await bench.until(1)]):
                bench.seen += await bench.received()
        assert set(ids) == {event.id, marker.id}

    async def test_concurrent_deliveries_all_arrive(self, bench: Bench) -> None:
        events = [new_event() for _ in range(25)]
        await asyncio.gather(*(bench.sink.deliver(event.id, event.model_dump_json()) for event in events))
        assert {check_cloudevent(text) for text in await bench.until(25)} == {event.id for event in events}

    async def test_delivery_to_missing_destination_fails_without_secrets_in_error(self, bench: Bench) -> None:
        event = new_event()
        for _ in range(2):
            with pytest.raises(SinkError) as caught:
                await bench.broken.deliver(event.id, event.model_dump_json())
            secret_canaries.check("the error of a sink", str(caught.value).encode())
            assert caught.value.__cause__ is None
        await bench.sink.deliver(event.id, event.model_dump_json())
        assert len(await bench.until(1)) == 1

    async def test_check_sends_no_event_and_reports_missing_destination(self, bench: Bench) -> None:
        event = new_event()
        assert isinstance(bench.sink, Checking)
        assert await bench.sink.check()
        assert isinstance(bench.broken, Checking)
        with pytest.raises(SinkError) as caught:
            await bench.broken.check()
        secret_canaries.check("the error of a check", str(caught.value).encode())
        await bench.sink.deliver(event.id, event.model_dump_json())
        assert [check_cloudevent(text) for text in await bench.until(1)] == [event.id]
