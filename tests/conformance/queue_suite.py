"""Tests that all queues of the producer side must pass: the real, the synchronous and the in-memory queue."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest

from export_producers import Accepted, ExportFilter, ExportRequest, Phase, Queue, Status, TraceContext
from export_worker.contract.output import Output
from export_worker.contract.parsing import parse_request
from export_worker.errors import ExportNotFoundError, IdempotencyConflictError, InvalidRequestError
from support.redis_site import request_of

TRACE = TraceContext(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", tracestate="a=b")
CONNECTIONS = {"gio": "growingio", "sa": "sensorsdata"}
UNKNOWN_ID = "0" * 32


@dataclass(frozen=True)
class Subject:
    """A queue under test.

    Args:
        end: Ends the export with this id, which is the only open one. True means success, False failure.
        trace: Returns the trace context that is stored with an export.
    """

    queue: Queue
    end: Callable[[str, bool], Awaitable[None]]
    trace: Callable[[str], Awaitable[TraceContext | None]]


class QueueSuite:
    """The tests. A subclass adds a fixture `subject`."""

    async def test_enqueued_export_has_a_queued_status(self, subject: Subject) -> None:
        accepted = await subject.queue.enqueue(request_of(metadata={"order": "42"}))
        status = await subject.queue.status(accepted.export_id)
        assert accepted == Accepted(export_id=status.export_id, phase=Phase.QUEUED, deduplicated=False)
        assert (status.connection, status.kind, status.phase) == ("gio", "growingio.tag_users", Phase.QUEUED)
        assert status.metadata == {"order": "42"}
        assert status.request is not None
        assert parse_request(json.dumps(status.request)) == request_of(metadata={"order": "42"})
        assert status.due_at == status.created_at == status.updated_at
        assert [entry["note"] for entry in await subject.queue.timeline(accepted.export_id)] == ["accepted"]

    async def test_enqueue_accepts_a_request_as_json(self, subject: Subject) -> None:
        accepted = await subject.queue.enqueue(request_of().model_dump_json(exclude_none=True))
        assert (await subject.queue.status(accepted.export_id)).kind == "growingio.tag_users"

    @pytest.mark.parametrize(
        ("request_", "field"),
        [("{}", "connection"), ("[]", "request"), (b"\xff", "request"), (request_of("unknown"), "connection")],
    )
    async def test_invalid_request_is_refused_with_its_field(
        self, subject: Subject, request_: ExportRequest | str | bytes, field: str
    ) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            await subject.queue.enqueue(request_)
        assert field in {problem.field for problem in refused.value.problems}
        assert await subject.queue.list_exports() == []

    async def test_connection_of_another_platform_is_refused(self, subject: Subject) -> None:
        with pytest.raises(InvalidRequestError, match="'sa' is of platform sensorsdata"):
            await subject.queue.enqueue(request_of("sa"))

    async def test_same_idempotency_key_returns_the_first_export_and_refuses_another_request(
        self, subject: Subject
    ) -> None:
        first = await subject.queue.enqueue(request_of(idempotency_key="k"))
        answers = await asyncio.gather(*(subject.queue.enqueue(request_of(idempotency_key="k")) for _ in range(5)))
        assert {answer.export_id for answer in answers} == {first.export_id}
        assert {answer.deduplicated for answer in answers} == {True}
        with pytest.raises(IdempotencyConflictError) as refused:
            await subject.queue.enqueue(request_of(idempotency_key="k", deadline_s=5.0, metadata={"a": "b"}))
        assert (refused.value.export_id, refused.value.fields) == (first.export_id, ("deadline_s", "metadata.a"))
        assert f"export {first.export_id} with another request (deadline_s, metadata.a differ)" in str(refused.value)
        assert len(await subject.queue.list_exports()) == 1

    async def test_dry_run_reports_equal_open_exports_and_enqueues_nothing(self, subject: Subject) -> None:
        equal = await subject.queue.enqueue(request_of(metadata={"order": "41"}))
        await subject.queue.enqueue(request_of(output=Output(compression="gzip")))
        result = await subject.queue.dry_run(request_of(metadata={"order": "42"}))
        assert [export.export_id for export in result.equal] == [equal.export_id]
        assert (result.kind, result.existing, result.platform) == ("growingio.tag_users", None, None)
        assert result.request["metadata"] == {"order": "42"}
        assert len(await subject.queue.list_exports()) == 2

    async def test_dry_run_reports_the_export_of_the_idempotency_key(self, subject: Subject) -> None:
        first = await subject.queue.enqueue(request_of(idempotency_key="k"))
        result = await subject.queue.dry_run(request_of(idempotency_key="k"))
        assert result.existing is not None
        assert result.existing.export_id == first.export_id
        with pytest.raises(IdempotencyConflictError):
            await subject.queue.dry_run(request_of(idempotency_key="k", deadline_s=5.0))

    @pytest.mark.parametrize("request_", ["{}", request_of("unknown"), request_of("sa")])
    async def test_dry_run_refuses_what_enqueue_refuses(self, subject: Subject, request_: ExportRequest | str) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            await subject.queue.dry_run(request_)
        assert refused.value.problems[0].field == "connection"

    async def test_page_has_the_exports_that_match_a_filter(self, subject: Subject) -> None:
        failed = (await subject.queue.enqueue(request_of())).export_id
        await subject.end(failed, False)
        waiting = (await subject.queue.enqueue(request_of())).export_id
        status = await subject.queue.status(failed)
        assert status.error is not None

        async def found(**conditions: Any) -> list[str]:
            page = await subject.queue.page(where=ExportFilter(**conditions))
            assert page.total in {None, len(page.statuses)}
            return [status.export_id for status in page.statuses]

        assert await found(connection="gio", kind=status.kind) == [waiting, failed]
        assert await found(connection="sa") == []
        assert await found(error=status.error.code) == [failed]
        assert await found(until=(await subject.queue.status(waiting)).created_at) == [failed]
        assert await found(since=(await subject.queue.status(waiting)).created_at) == [waiting]
        assert [each.export_id for each in (await subject.queue.page(Phase.QUEUED)).statuses] == [waiting]
        assert await subject.queue.values_in_use("error") == [status.error.code]

    async def test_enqueue_many_answers_each_request_in_order(self, subject: Subject) -> None:
        requests: list[ExportRequest | str | bytes] = [
            request_of(idempotency_key="a"),
            "{}",
            request_of(idempotency_key="a"),
            request_of(idempotency_key="a", deadline_s=5.0),
            request_of("unknown"),
            request_of(),
        ]
        first, malformed, same, conflict, unknown, last = await subject.queue.enqueue_many(requests)
        assert isinstance(first, Accepted)
        assert same == Accepted(export_id=first.export_id, phase=Phase.QUEUED, deduplicated=True)
        assert isinstance(malformed, InvalidRequestError)
        assert isinstance(unknown, InvalidRequestError)
        assert isinstance(conflict, IdempotencyConflictError)
        assert isinstance(last, Accepted)
        assert {status.export_id for status in await subject.queue.list_exports()} == {first.export_id, last.export_id}

    async def test_enqueue_many_of_no_requests_returns_no_answers(self, subject: Subject) -> None:
        assert await subject.queue.enqueue_many([]) == []

    async def test_trace_context_is_stored_with_the_export(self, subject: Subject) -> None:
        traced = await subject.queue.enqueue(request_of(), trace=TRACE)
        (many,) = await subject.queue.enqueue_many([request_of()], trace=TRACE)
        plain = await subject.queue.enqueue(request_of())
        assert isinstance(many, Accepted)
        assert [await subject.trace(one.export_id) for one in (traced, many, plain)] == [TRACE, TRACE, None]
        statuses = [await subject.queue.status(one.export_id) for one in (traced, many, plain)]
        assert [status.trace_id for status in statuses] == [TRACE.trace_id, TRACE.trace_id, None]

    async def test_wait_reports_changes_and_returns_the_final_status(self, subject: Subject) -> None:
        accepted = await subject.queue.enqueue(request_of())
        changes: list[Status] = []
        waiting = asyncio.create_task(subject.queue.wait(accepted.export_id, 30, on_change=changes.append))
        while not changes:
            await asyncio.sleep(0.01)
        await subject.end(accepted.export_id, True)
        status = await waiting
        assert (status.phase, status.error) == (Phase.SUCCEEDED, None)
        assert (len(status.objects), status.due_at) == (1, None)
        assert status.finished_at is not None
        assert changes[0].phase is Phase.QUEUED
        assert changes[-1] == status == await subject.queue.status(accepted.export_id)

    async def test_wait_returns_the_status_of_a_failed_export(self, subject: Subject) -> None:
        accepted = await subject.queue.enqueue(request_of())
        await subject.end(accepted.export_id, False)
        status = await subject.queue.wait(accepted.export_id, 10)
        assert status.phase is Phase.FAILED
        assert status.error is not None
        explanation = await subject.queue.explanation(accepted.export_id)
        assert await subject.queue.explain(accepted.export_id) == explanation.text()
        assert explanation.reason.code == "failed"

    async def test_watch_of_an_ended_export_yields_its_final_status_only(self, subject: Subject) -> None:
        accepted = await subject.queue.enqueue(request_of())
        await subject.end(accepted.export_id, True)
        async with aclosing(subject.queue.watch(accepted.export_id)) as statuses:
            assert [status.phase async for status in statuses] == [Phase.SUCCEEDED]

    async def test_wait_raises_an_error_after_its_timeout(self, subject: Subject) -> None:
        accepted = await subject.queue.enqueue(request_of())
        with pytest.raises(TimeoutError):
            await subject.queue.wait(accepted.export_id, 0.05)

    async def test_cancel_of_an_open_export_is_explained(self, subject: Subject) -> None:
        accepted = await subject.queue.enqueue(request_of())
        assert await subject.queue.cancel(accepted.export_id) is Phase.QUEUED
        assert (await subject.queue.explain(accepted.export_id)).startswith("Cancellation requested. ")

    async def test_ended_export_is_changed_only_by_a_retry(self, subject: Subject) -> None:
        accepted = await subject.queue.enqueue(request_of())
        with pytest.raises(InvalidRequestError, match="only an ended export can be retried"):
            await subject.queue.retry(accepted.export_id)
        await subject.end(accepted.export_id, False)
        assert await subject.queue.cancel(accepted.export_id) is Phase.FAILED
        ended_at = (await subject.queue.status(accepted.export_id)).finished_at
        again = await subject.queue.retry(accepted.export_id, "submit", ended_at=ended_at)
        assert (again.phase, again.error, again.finished_at) == (Phase.QUEUED, None, None)
        assert (await subject.queue.status(accepted.export_id)).phase is Phase.QUEUED
        repeated = [await subject.queue.retry(accepted.export_id, "submit", ended_at=ended_at)]
        await subject.end(accepted.export_id, True)
        repeated.append(await subject.queue.retry(accepted.export_id, "submit", ended_at=ended_at))
        assert {each.model_dump_json() for each in repeated} == {again.model_dump_json()}
        with pytest.raises(InvalidRequestError, match="has been restarted in the meantime"):
            await subject.queue.retry(accepted.export_id, ended_at=ended_at)
        assert (await subject.queue.status(accepted.export_id)).phase is Phase.SUCCEEDED

    async def test_pages_neither_repeat_nor_miss_exports_while_others_are_enqueued(self, subject: Subject) -> None:
        answers = await subject.queue.enqueue_many([request_of() for _ in range(7)])
        before = {answer.export_id for answer in answers if isinstance(answer, Accepted)}
        seen: list[str] = []
        cursor = None
        for expected in (3, 3, 1):
            page = await subject.queue.page(Phase.QUEUED, 3, cursor)
            await subject.queue.enqueue(request_of())
            assert len(page.statuses) == expected
            seen += [status.export_id for status in page.statuses]
            cursor = page.cursor
        assert cursor is None
        assert (len(seen), set(seen)) == (7, before)
        assert await subject.queue.list_exports(Phase.FAILED) == []

    @pytest.mark.parametrize("cursor", ["", "x", "MTIz", "ÿ", "MTIzLmFi="])
    async def test_invalid_cursor_is_refused(self, subject: Subject, cursor: str) -> None:
        with pytest.raises(InvalidRequestError, match="cursor"):
            await subject.queue.page(None, 3, cursor)

    @pytest.mark.parametrize("call", ["status", "wait", "cancel", "retry", "explain", "explanation"])
    async def test_unknown_export_is_not_found(self, subject: Subject, call: str) -> None:
        with pytest.raises(ExportNotFoundError):
            await getattr(subject.queue, call)(UNKNOWN_ID)

    async def test_known_connections_are_those_of_the_caller(self, subject: Subject) -> None:
        assert await subject.queue.known_connections() == CONNECTIONS
