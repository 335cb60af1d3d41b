"""The bulk runs of a gateway: each of its queues runs its part of an order, under the same id."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime

from export_producers.bulk.acting import Acting
from export_producers.bulk.documents import BulkPreview, BulkRequest, BulkRun, Progress
from export_producers.bulk.runs import Bulks
from export_producers.client import ExportQueue
from export_producers.gateway.handlers.bulk_runner import SAMPLE, BulkRunner, preview
from export_producers.queues.fan_out import Answers
from export_producers.queues.queues import ExportQueues

Counted = tuple[BulkPreview, datetime]
"""What an order would do in one queue, and the time of this state."""


class BulkRuns:
    """Counts, starts, shows and stops bulk runs. The runners act on the exports, one for each queue."""

    def __init__(self, queues: ExportQueues) -> None:
        self._queues = queues
        owner = secrets.token_hex(8)
        self._bulks = {name: Bulks(queue.storage, owner) for name, queue in queues.by_name.items()}
        self._runners = {
            name: BulkRunner(queue, self._bulks[name], Acting(queue.storage)) for name, queue in queues.by_name.items()
        }

    async def run(self) -> None:
        """Runs orders until it is cancelled."""
        await asyncio.gather(*(runner.run() for runner in self._runners.values()))

    async def stop(self) -> None:
        """Stops the runs of this gateway. Other gateways may continue them."""
        await asyncio.gather(*(runner.stop() for runner in self._runners.values()))

    async def count(self, request: BulkRequest, allowed: frozenset[str] | None) -> Answers[Counted]:
        """Returns what an order would do in each queue.

        Args:
            allowed: The connections that the caller may use; None for all.
        """

        async def count(queue: ExportQueue) -> Counted:
            now = await queue.storage.now()
            return await preview(queue, request.order(now, allowed)), now

        return await self._queues.every(count)

    async def add(
        self,
        request: BulkRequest,
        counted: Answers[Counted],
        by: str,
        allowed: frozenset[str] | None,
        bulk_id: str | None,
    ) -> BulkRun:
        """Starts a run in each queue that has exports to act on. If one of them refuses it, the others stop.

        Raises:
            TooManyRunsError: There are too many in a queue.
        """
        bulk_id, started = bulk_id or secrets.token_hex(16), dict[str, BulkRun]()
        try:
            for name, rate in shares({name: found.count for name, (found, _) in counted.by_queue.items()}).items():
                found, now = counted.by_queue[name]
                part = request.model_copy(update={"per_second": request.per_second * rate})
                started[name] = await self._runners[name].add(part, _progress(found, now, by, allowed), bulk_id)
        except BaseException:
            for name in started:
                await self._bulks[name].stop(bulk_id)
            raise
        return merged_run(list(started.values()), counted.missing)

    async def get(self, bulk_id: str) -> BulkRun | None:
        """Returns a run; None if it does not exist. Needs one round trip.

        Raises:
            ServiceUnreachableError: Only a queue that cannot be reached may have it.
        """
        answers = await self._queues.every(lambda queue: self._of(queue).get(bulk_id))
        found = [run for run in answers.found if run is not None]
        if not found:
            answers.require_all()
        return merged_run(found, answers.missing) if found else None

    async def request_stop(self, bulk_id: str) -> None:
        """Requests that a run stops, in each queue that has a part of it."""

        async def stop(queue: ExportQueue) -> None:
            if await self._of(queue).get(bulk_id) is not None:
                await self._of(queue).stop(bulk_id)

        await self._queues.every(stop)

    def _of(self, queue: ExportQueue) -> Bulks:
        return self._bulks[self._queues.name_of(queue)]


def _progress(found: BulkPreview, now: datetime, by: str, allowed: frozenset[str] | None) -> Progress:
    return Progress(
        total=found.count,
        created_at=now,
        updated_at=now,
        by=by,
        connections=None if allowed is None else sorted(allowed),
    )


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    """Returns the part of the rate of a run for each queue that has exports; one queue if none has. Pure."""
    total = sum(counts.values())
    if not total:
        return {next(iter(counts)): 1.0}
    return {name: count / total for name, count in counts.items() if count}


def merged_preview(answers: Answers[Counted]) -> BulkPreview:
    """Returns what an order would do in all queues. Pure."""
    found = [counted for counted, _ in answers.found]
    sample = sorted((each for counted in found for each in counted.sample), key=lambda each: each.created_at)
    return BulkPreview(
        count=sum(counted.count for counted in found),
        hopeless=sum(counted.hopeless for counted in found),
        hopeless_by_code=_added([counted.hopeless_by_code for counted in found]),
        by_code=_added([counted.by_code for counted in found]),
        sample=sample[::-1][:SAMPLE],
        complete=all(counted.complete for counted in found) and not answers.missing,
        missing_queues=list(answers.missing),
    )


def _added(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    codes = {code: sum(each.get(code, 0) for each in counts) for each in counts for code in each}
    return dict(sorted(codes.items(), key=lambda found: -found[1]))


def merged_run(parts: Sequence[BulkRun], missing: Sequence[str]) -> BulkRun:
    """Returns the run of which each queue has a part. Pure."""
    states = {part.state for part in parts}
    state = next(each for each in ("stopping", "running", "stopped", "done") if each in states)
    rates = [part.per_second for part in parts if part.per_second is not None]
    return parts[0].model_copy(
        update={
            "state": state,
            **{name: sum(getattr(part, name) for part in parts) for name in ("total", "done", "skipped", "hopeless")},
            "per_second": round(sum(rates), 3) if rates else None,
            "created_at": min(part.created_at for part in parts),
            "updated_at": max(part.updated_at for part in parts),
            "missing_queues": list(missing),
        }
    )
