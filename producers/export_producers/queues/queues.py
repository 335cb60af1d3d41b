"""`ExportQueues`: what a gateway uses in the place of one queue."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from export_producers.client import AnyRequest, ExportQueue
from export_producers.closing import Closing
from export_producers.filters import EVERY_EXPORT, ExportFilter
from export_producers.queues.fan_out import Answers, Call, FanOut, QueueUnreachableError
from export_producers.queues.feeds import ChangesOfQueues
from export_producers.queues.merging import START, decoded
from export_producers.queues.overviews import merged_overview
from export_producers.queues.pages import merged_exports
from export_producers.queues.routes import Routes
from export_producers.reads.change_feed import ChangeFeed
from export_producers.reads.overview_document import Overview, WorkerState
from export_producers.reads.shared import SharedRead
from export_producers.reasons import Explanation
from export_producers.records import Page, Start, wrong_connection
from export_worker.contract.dry_run import DryRun, Preview
from export_worker.contract.names import unknown_name
from export_worker.contract.parsing import parse_request
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Accepted, Phase, Status
from export_worker.contract.trace import TraceContext
from export_worker.errors import FieldProblem, InvalidRequestError, ServiceUnreachableError

ONLY = "default"
"""The name of the queue of a gateway that has one. No answer has it."""
ROUTES_KEPT_S = 1.0
"""For how long the announced connections are used. One that is unknown is looked for at once."""

Answer = TypeVar("Answer")


class ExportQueues(Closing):
    """Queues that are used as one: each has its own namespace, connections and workers.

    With a single queue, every call is a call of that queue, and nothing is merged.

    Args:
        queues: The queues by their names.
        stated: The connections that the configuration states for queues. The workers of each queue announce the others.
    """

    def __init__(self, queues: Mapping[str, ExportQueue], stated: Mapping[str, Collection[str]] | None = None) -> None:
        self.by_name = queues
        self._fan_out = FanOut(queues)
        self._stated = stated or {}
        self._announced: dict[str, Mapping[str, str]] = {}
        self._routes = SharedRead(self._read_routes, ROUTES_KEPT_S)
        self._names = {id(queue): name for name, queue in queues.items()}
        self._only = next(iter(queues.values())) if len(queues) == 1 else None
        self.every = self._fan_out.every
        """See `FanOut.every`."""
        self.of_export = self._fan_out.holder
        """See `FanOut.holder`."""
        self.ask = self._fan_out.ask
        """See `FanOut.ask`."""

    @classmethod
    def of(cls, queue: "ExportQueue | ExportQueues") -> "ExportQueues":
        """Returns a queue as the only one of a gateway."""
        return queue if isinstance(queue, ExportQueues) else cls({ONLY: queue})

    async def close(self) -> None:
        """Closes the connections of all queues."""
        await self._fan_out.close()
        for queue in self.by_name.values():
            await queue.close()

    @property
    def first(self) -> ExportQueue:
        """The first queue, for what concerns no export."""
        return next(iter(self.by_name.values()))

    @property
    def now(self) -> datetime:
        """The time that all processes use, as far as this one knows it."""
        return max((queue.storage.clock for queue in self.by_name.values()), key=lambda clock: clock.next_sync_s).time()

    def changes(self) -> ChangeFeed | ChangesOfQueues:
        """Returns a reader of the changes of all exports."""
        feeds = {name: ChangeFeed(queue.reads.changes) for name, queue in self.by_name.items()}
        return ChangesOfQueues(feeds) if self._only is None else feeds.popitem()[1]

    async def check(self) -> Answers[None]:
        """Checks that the Redis of at least one queue accepts writes."""
        return await self.every(lambda queue: queue.check())

    def name_of(self, queue: ExportQueue) -> str:
        """Returns the name of one of the queues."""
        return self._names[id(queue)]

    async def of_connection(self, connection: str, call: Call[Answer]) -> Answer:
        """Calls the queue of a connection.

        Raises:
            InvalidRequestError: No queue has the connection, or several have.
            ServiceUnreachableError: Its queue, or one that may have it, cannot be reached.
        """
        name = await self._queue_of(connection)
        if name is None:
            known = sorted(await self.known_connections())
            raise InvalidRequestError([FieldProblem("connection", unknown_name("connection", connection, known))])
        return await self.ask(name, call)

    async def of_any(self, call: Call[Answer]) -> Answer:
        """Calls the first queue that can be reached.

        Raises:
            ServiceUnreachableError: None can.
        """
        *others, last = self.by_name
        for name in others:
            with suppress(ServiceUnreachableError):
                return await self.ask(name, call)
        return await self.ask(last, call)

    async def namespace_of(self, connection: str) -> str:
        """Returns the namespace of the queue of a connection."""

        async def namespace(queue: ExportQueue) -> str:
            return queue.storage.keys.namespace

        return await self.of_connection(connection, namespace)

    async def known_connections(self) -> dict[str, str]:
        """Returns connection → platform: the connections of all queues."""
        if self._only is not None:
            return await self._only.known_connections()
        return (await self._routes.get()).platforms

    async def _queue_of(self, connection: str) -> str | None:
        if self._only is not None:
            return next(iter(self.by_name))
        name = (await self._routes.get()).queue_of(connection)
        if name is not None:
            return name
        # A worker may have announced it a moment ago.
        routes = await self._read_routes()
        name = routes.queue_of(connection)
        if name is None and routes.missing:
            raise QueueUnreachableError(routes.missing[0], "it cannot be reached, and no other has the connection")
        return name

    async def _read_routes(self) -> Routes:
        answers = await self.every(lambda queue: queue.reads.connections())
        self._announced |= answers.by_queue
        announced = {name: self._announced[name] for name in self.by_name if name in self._announced}
        return Routes(announced, self._stated, [name for name in answers.missing if name not in announced])

    async def enqueue(
        self,
        request: AnyRequest,
        *,
        trace: TraceContext | None = None,
        owner: str | None = None,
        requested_by: str | None = None,
    ) -> Accepted:
        """Enqueues an export in the queue of its connection. See `ExportQueue.enqueue`."""
        return await self._of_request(
            request, lambda queue, read: queue.enqueue(read, trace=trace, owner=owner, requested_by=requested_by)
        )

    async def dry_run(
        self, request: AnyRequest, platform: Preview | None = None, *, owner: str | None = None
    ) -> DryRun:
        """Checks a request in the queue of its connection. See `ExportQueue.dry_run`."""
        return await self._of_request(request, lambda queue, read: queue.dry_run(read, platform, owner=owner))

    async def _of_request(
        self, request: AnyRequest, call: Callable[[ExportQueue, AnyRequest], Awaitable[Answer]]
    ) -> Answer:
        if self._only is not None:
            return await call(self._only, request)
        read = request if isinstance(request, ExportRequest) else parse_request(request)
        name = await self._queue_of(read.connection)
        if name is None:
            raise wrong_connection(read, None, await self.known_connections())
        return await self.ask(name, lambda queue: call(queue, read))

    async def status(self, export_id: str) -> Status:
        """Returns the status of an export, wherever it is."""
        return await self.of_export(export_id, lambda queue: queue.status(export_id))

    async def cancel(self, export_id: str) -> Phase:
        """Requests the cancellation of an export, wherever it is."""
        return await self.of_export(export_id, lambda queue: queue.cancel(export_id))

    async def retry(self, export_id: str, start: Start | None = None) -> Status:
        """Restarts an export, wherever it is."""
        return await self.of_export(export_id, lambda queue: queue.retry(export_id, start))

    async def explanation(self, export_id: str) -> Explanation:
        """Explains an export, wherever it is."""
        return await self.of_export(export_id, lambda queue: queue.explanation(export_id))

    async def timeline(self, export_id: str) -> list[dict[str, Any]]:
        """Returns the transitions of an export, wherever it is; none if it does not exist."""
        return next((found for found in (await self.every(lambda queue: queue.timeline(export_id))).found if found), [])

    async def page(
        self,
        phase: Phase | None = None,
        limit: int = 50,
        cursor: str | None = None,
        *,
        where: ExportFilter = EVERY_EXPORT,
    ) -> Page:
        """Returns one page of the exports of all queues. See `ExportQueue.page`."""
        if self._only is not None:
            return await self._only.page(phase, limit, cursor, where=where)
        before = decoded(cursor, self.by_name)

        async def read(queue: ExportQueue) -> Page:
            # A queue that has no more is counted all the same.
            position = before.get(self.name_of(queue))
            most = 1 if position is None else limit
            return await queue.page(phase, most, None if position in {None, START} else position, where=where)

        pages = await self.every(read)
        most = sum(len(page.statuses) for page in pages.found) if where.export_ids is not None else limit
        return merged_exports(pages, most, before)

    async def overview(self) -> Overview:
        """Returns the state of all queues."""
        return merged_overview(await self.every(lambda queue: queue.reads.overview()))

    async def workers(self) -> list[WorkerState]:
        """Returns the workers of all queues that run, the last started first."""
        found = (await self.every(lambda queue: queue.reads.workers())).found
        return sorted((worker for each in found for worker in each), key=lambda each: each.started_at, reverse=True)
