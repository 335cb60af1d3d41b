"""Runs the conformance suite for each queue, and tests what only one of them does."""

import asyncio
import json
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast

import pytest
from arq.connections import ArqRedis

from conformance.queue_suite import CONNECTIONS, QueueSuite, Subject
from export_producers import Accepted, ExportQueue, Phase, Queue, Status, SyncExportQueue, TraceContext
from export_producers.testing import End, Fails, InMemoryExportQueue, Stays, Succeeds
from export_worker.contract.past_documents import stored_event
from export_worker.contract.redis_keys import Keys
from export_worker.errors import ServiceUnreachableError
from export_worker.redis.records import read_events
from support.redis_site import REFUSED, QueueSite, request_of


class WorkerSide:
    """Ends exports as a worker does, and reads their records."""

    def __init__(self, site: QueueSite) -> None:
        self.site = site

    async def end(self, export_id: str, succeeds: bool) -> None:
        """Ends the only open export."""
        site = self.site
        site.catch_up()
        await site.submit(await site.one())
        claimed = await site.one()
        assert claimed.export.export_id == export_id
        if not succeeds:
            return await site.fail(claimed, REFUSED)
        await site.ready(claimed)
        return await site.succeed(await site.one("transfer"))

    async def trace(self, export_id: str) -> TraceContext | None:
        """Returns the trace context in the record."""
        found = (await self.site.record(export_id)).get("trace")
        return None if found is None else TraceContext.model_validate_json(found)


class Awaited:
    """Makes a synchronous queue awaitable: each call runs in a thread."""

    def __init__(self, queue: SyncExportQueue) -> None:
        self._queue = queue

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **named: Any) -> Any:
            return await asyncio.to_thread(getattr(self._queue, name), *arguments, **named)

        return call

    async def watch(self, export_id: str) -> AsyncGenerator[Status, None]:
        """See `ExportQueue.watch`."""
        statuses = self._queue.watch(export_id)
        while (status := await asyncio.to_thread(next, statuses, None)) is not None:
            yield status


class TestExportQueue(QueueSuite):
    @pytest.fixture
    async def subject(self, arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[Subject]:
        async with ExportQueue(redis_url, namespace=namespace, connections=CONNECTIONS) as queue:
            real = WorkerSide(QueueSite(arq_redis, queue, Keys(namespace)))
            yield Subject(queue, real.end, real.trace)

    async def test_enqueue_many_loads_the_script_into_redis_once(self, subject: Subject) -> None:
        assert isinstance(subject.queue, ExportQueue)
        redis: Any = subject.queue._client
        await redis.script_flush()
        await redis.config_resetstat()
        for count in (3, 1001):
            answers = await subject.queue.enqueue_many([request_of() for _ in range(count)])
            assert [answer for answer in answers if not isinstance(answer, Accepted)] == []
        stats = await redis.info("commandstats")
        assert stats["cmdstat_script|load"]["calls"] == 1
        assert len(await subject.queue.list_exports(limit=1000)) == 1000

    async def test_pages_continue_within_exports_of_one_millisecond(
        self, subject: Subject, arq_redis: ArqRedis
    ) -> None:
        assert isinstance(subject.queue, ExportQueue)
        await subject.queue.enqueue_many([request_of() for _ in range(5)])
        first = await subject.queue.page(limit=2)
        second = await subject.queue.page(limit=2, cursor=first.cursor)
        third = await subject.queue.page(limit=2, cursor=second.cursor)
        seen = [status.export_id for page in (first, second, third) for status in page.statuses]
        assert (len(seen), len(set(seen)), third.cursor) == (5, 5, None)

    async def test_event_continues_the_trace_of_its_request(self, subject: Subject, arq_redis: ArqRedis) -> None:
        assert isinstance(subject.queue, ExportQueue)
        trace = TraceContext(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        keys = subject.queue._keys
        for given in (trace, None):
            accepted = await subject.queue.enqueue(request_of(), trace=given)
            await subject.end(accepted.export_id, True)
            event_id = f"{accepted.export_id}.1"
            (stored,) = await read_events(arq_redis, keys, [event_id])
            event = json.loads(stored_event(stored or b"", event_id, keys.namespace).model_dump_json())
            assert event.get("traceparent", None if given else "absent") == (trace.traceparent if given else "absent")


class TestSyncExportQueue(QueueSuite):
    @pytest.fixture
    async def subject(self, arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[Subject]:
        with SyncExportQueue(redis_url, namespace=namespace, connections=CONNECTIONS) as queue:
            awaited = cast("ExportQueue", Awaited(queue))
            real = WorkerSide(QueueSite(arq_redis, awaited, Keys(namespace)))
            yield Subject(cast("Queue", awaited), real.end, real.trace)

    def test_many_threads_may_use_one_queue(self, redis_url: str, namespace: str) -> None:
        with SyncExportQueue(redis_url, namespace=namespace) as queue:
            threads = [threading.Thread(target=queue.enqueue, args=(request_of(),)) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(queue.list_exports()) == 20

    def test_close_ends_waiting_calls_and_the_thread(self, redis_url: str, namespace: str) -> None:
        before = threading.active_count()
        queue = SyncExportQueue(redis_url, namespace=namespace)
        export_id = queue.enqueue(request_of()).export_id
        errors, watching = [], threading.Event()

        def wait() -> None:
            try:
                queue.wait(export_id, on_change=lambda _: watching.set())
            except RuntimeError as error:
                errors.append(str(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert watching.wait(20)
        queue.close()
        waiting.join(20)
        assert errors == ["this SyncExportQueue was closed during the call"]
        assert threading.active_count() == before
        queue.close()
        with pytest.raises(RuntimeError, match="is closed"):
            queue.status(export_id)

    def test_close_ends_a_call_that_ignores_the_first_cancellation(
        self, redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        watching = threading.Event()

        async def ignore_one_cancellation(*_: object) -> None:
            # redis-py loses a cancellation now and then.
            with suppress(asyncio.CancelledError):
                watching.set()
                await asyncio.Event().wait()
            await asyncio.Event().wait()

        queue = SyncExportQueue(redis_url, namespace=namespace)
        monkeypatch.setattr(ExportQueue, "status", ignore_one_cancellation)
        with ThreadPoolExecutor(2) as threads:
            waiting = threads.submit(queue.status, "e1")
            assert watching.wait(20)
            threads.submit(queue.close).result(20)
            assert isinstance(waiting.exception(20), RuntimeError)

    def test_watch_may_be_left_early(self, redis_url: str, namespace: str) -> None:
        with SyncExportQueue(redis_url, namespace=namespace) as queue:
            export_id = queue.enqueue(request_of()).export_id
            for status in queue.watch(export_id):
                assert status.phase is Phase.QUEUED
                break

    def test_call_in_a_forked_process_raises_an_error(
        self, redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with SyncExportQueue(redis_url, namespace=namespace) as queue:
            here = os.getpid()
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: here + 1)
                with pytest.raises(RuntimeError, match="opened before a fork"):
                    queue.list_exports()

    def test_unreachable_redis_raises_an_error(self) -> None:
        with SyncExportQueue("redis://127.0.0.1:1/0") as queue, pytest.raises(ServiceUnreachableError):
            queue.list_exports()


class TestInMemoryExportQueue(QueueSuite):
    @pytest.fixture
    def subject(self) -> Subject:
        queue = InMemoryExportQueue(connections=CONNECTIONS, otherwise=Stays())

        async def end(export_id: str, succeeds: bool) -> None:
            assert queue.end(export_id, Succeeds() if succeeds else Fails()).phase.terminal

        async def trace(export_id: str) -> TraceContext | None:
            return queue.trace(export_id)

        return Subject(queue, end, trace)

    async def test_exports_end_as_scripted(self) -> None:
        script: list[End] = [Succeeds(["users.csv"]), Fails("result_missing", step="transfer"), Fails(step="submit")]
        async with InMemoryExportQueue(then=script) as queue:
            ids = [(await queue.enqueue(request_of())).export_id for _ in range(4)]
            ended = [await queue.wait(export_id) for export_id in ids]
        assert [item.phase.value for item in ended] == ["succeeded", "failed", "failed", "succeeded"]
        assert ended[0].objects[0].file_name == "users.csv"
        assert [item.error and item.error.code for item in ended] == [None, "result_missing", "platform_error", None]
        assert len(queue.requests) == 4

    async def test_cancelled_export_ends_as_cancelled(self) -> None:
        queue = InMemoryExportQueue(otherwise=Stays())
        export_id = (await queue.enqueue(request_of())).export_id
        await queue.cancel(export_id)
        assert (await queue.wait(export_id)).phase is Phase.CANCELLED

    async def test_watch_yields_every_phase(self) -> None:
        queue = InMemoryExportQueue()
        export_id = (await queue.enqueue(request_of())).export_id
        phases = [status.phase.value async for status in queue.watch(export_id)]
        assert phases == ["queued", "running", "transferring", "succeeded"]
