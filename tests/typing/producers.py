"""Code of a service, for the type checker. It can also be run: `producers.py REDIS_URL NAMESPACE`."""

import asyncio
import sys
from typing import assert_type

from export_producers import (
    Accepted,
    DryRun,
    EnqueueError,
    ExportFilter,
    ExportQueue,
    ExportRequest,
    Page,
    Phase,
    Queue,
    Status,
    SyncExportQueue,
    TraceContext,
    use_recipe,
)
from export_producers.testing import Fails, InMemoryExportQueue, Succeeds

REQUEST = '{"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "tag_payment_times"}}'
HEADERS = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}


def know(file: str) -> None:
    """Code of a service that requests exports of a recipe."""
    assert_type(use_recipe(file), list[str])


async def request_exports(queue: Queue) -> str:
    """Code of a service that accepts any implementation of the queue."""
    accepted = await queue.enqueue(REQUEST, trace=TraceContext.of(HEADERS))
    assert_type(accepted, Accepted)
    for result in await queue.enqueue_many([ExportRequest.model_validate_json(REQUEST), REQUEST]):
        assert_type(result, Accepted | EnqueueError)
        if isinstance(result, Accepted):
            await queue.cancel(result.export_id)
    assert_type(await queue.page(Phase.QUEUED, limit=10), Page)
    assert_type(await queue.page(where=ExportFilter(connection="gio", error="storage_error")), Page)
    assert_type(await queue.dry_run(REQUEST), DryRun)
    return accepted.export_id


def show(status: Status) -> None:
    """Prints the phase."""
    sys.stdout.write(f"{status.phase}\n")


async def in_memory() -> None:
    """Code of a test of a service."""
    queue = InMemoryExportQueue(then=[Succeeds(["users.csv"]), Fails("platform_error")])
    export_id = await request_exports(queue)
    status = await queue.wait(export_id, on_change=show)
    assert_type(status.phase, Phase)
    assert_type(status.objects[0].bytes, int)


async def real(url: str, namespace: str) -> None:
    """Code of a service with an event loop."""
    async with ExportQueue(url, namespace=namespace) as queue:
        show(await queue.status(await request_exports(queue)))


def without_event_loop(url: str, namespace: str) -> None:
    """Code of a service without an event loop."""
    with SyncExportQueue(url, namespace=namespace) as queue:
        accepted = queue.enqueue(REQUEST)
        assert_type(accepted, Accepted)
        for status in queue.watch(accepted.export_id):
            assert_type(status, Status)
            break


if __name__ == "__main__":
    asyncio.run(in_memory())
    asyncio.run(real(*sys.argv[1:3]))
    without_event_loop(*sys.argv[1:3])
