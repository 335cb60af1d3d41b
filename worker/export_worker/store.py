"""The export's record in Redis: the truth that every worker works from.

One record is one hash: `request` and `status` (the contract's documents, which producers write and read), `state` (this
package's own `Export`), `version` (for compare-and-set), `step` (the only one that may run next) and `progress` (how
far a transfer is, while one runs). Every change is one script: the record, its timeline, its indexes, the next queue
entry or the outbox, together or not at all, so there is no gap in which an export could be lost.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from arq.connections import ArqRedis

from export_worker.connect import commands
from export_worker.contract.keys import (
    ARQ_IN_PROGRESS_PREFIX,
    ARQ_JOB_PREFIX,
    ARQ_RETRY_PREFIX,
    JOB_TTL_MS,
    Keys,
    job_payload,
)
from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Phase, Progress, Status
from export_worker.errors import LeaseLostError
from export_worker.export import Ended, Export, accepted, event_of, status_of
from export_worker.lua import script
from export_worker.steps import Decision

TIMELINE_MAX = 200
"""Transitions kept of one export: some 20 KiB at the worst, and far more than a healthy one has."""

REVIVE_MAX = 100
"""Overdue exports looked at in one sweep, so that a sweep ends well before the next one."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One step of one export that this worker holds the lease of."""

    export: Export
    version: int
    step: int
    owner: str


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things live.

    Args:
        lease_s: A worker that says nothing for so long has lost its step.
        grace_s: How late a queue entry may be before the sweep looks into it.
        retention_s: How long an ended export can be looked at.
    """

    lease_s: float = 15.0
    grace_s: float = 5.0
    retention_s: float = 7 * 86_400.0


class Store:
    """Reads and changes records.

    Args:
        redis: Client of the one Redis that holds the namespace.
        keys: The namespace's keys.
        sinks: Names of the sinks that every completion event goes to.
        terms: How long things live.
    """

    def __init__(self, redis: ArqRedis, keys: Keys, sinks: Sequence[str], terms: Terms) -> None:
        self._client = redis
        self._redis = commands(redis)
        self._keys = keys
        self._sinks = tuple(sinks)
        self._terms = terms
        names = ("begin", "commit", "renew", "release", "revive")
        self._scripts = {name: redis.register_script(script(name)) for name in names}

    async def begin(self, export_id: str, step: int, owner: str, now: datetime) -> Turn | None:
        """Take the lease of a step. None when it is not the next one any more, or somebody else is at it."""
        keys, terms = self._keys, self._terms
        answer = await self._scripts["begin"](
            keys=[keys.export(export_id), keys.lease(export_id), keys.open],
            args=[step, owner, _ms(terms.lease_s), epoch_ms(now + timedelta(seconds=terms.lease_s)), export_id],
        )
        if answer[0] != b"ok":
            return None
        _, version, request, status, state = answer
        export = Export.model_validate_json(state) if state else _first(request, status)
        return Turn(export, int(version), step, owner)

    async def keep(self, turn: Turn, decision: Decision) -> Turn:
        """Save a decision in the middle of a step, and go on holding the lease.

        Raises:
            LeaseLostError: Somebody else has the export; nothing was changed.
        """
        await self._commit(turn, decision, {"mode": "keep"})
        return Turn(decision.export, turn.version + 1, turn.step, turn.owner)

    async def commit(self, turn: Turn, decision: Decision, now: datetime) -> None:
        """Save what a step decided, schedule the next step or put the completion event out, end the lease.

        Raises:
            LeaseLostError: Somebody else has the export; nothing was changed.
        """
        export = decision.export
        if isinstance(export.state, Ended):
            event = event_of(export, self._keys.namespace)
            ending = {"mode": "end", "event_id": event.id, "event": event.model_dump_json()}
            await self._commit(turn, decision, ending | {"now_ms": str(epoch_ms(now))})
            return
        due_ms, step = epoch_ms(export.due_at), turn.step + 1
        schedule = {
            "mode": "next",
            "due_ms": str(due_ms),
            "job_id": self._keys.job_id(export.export_id, step),
            "job": job_payload(export.export_id, step, epoch_ms(now)),
            "job_ttl_ms": str(max(due_ms - epoch_ms(now), 0) + JOB_TTL_MS),
        }
        await self._commit(turn, decision, schedule)

    async def _commit(self, turn: Turn, decision: Decision, ending: dict[str, str]) -> None:
        export = decision.export
        event_id = ending.get("event_id", "")
        change = {
            "owner": turn.owner,
            "version": str(turn.version),
            "export_id": export.export_id,
            "state": export.model_dump_json(exclude_none=True),
            "status": status_of(export).model_dump_json(),
            "created_ms": str(epoch_ms(export.created_at)),
            "note": _note(export.updated_at, export.phase, turn.step, decision.note) if decision.note else "",
            "timeline_max": str(TIMELINE_MAX),
            "retention_ms": str(_ms(self._terms.retention_s)),
        }
        keys = self._commit_keys(turn, export, ending.get("job_id", ""), event_id)
        if not await self._scripts["commit"](keys=keys, args=[json.dumps(change | ending)]):
            raise LeaseLostError(f"export {export.export_id} was taken over in step {turn.step}")

    def _commit_keys(self, turn: Turn, export: Export, job_id: str, event_id: str) -> list[str]:
        keys, export_id = self._keys, export.export_id
        return [
            keys.export(export_id),
            keys.lease(export_id),
            keys.timeline(export_id),
            keys.open,
            keys.created,
            keys.ended,
            keys.phase(turn.export.phase),
            keys.phase(export.phase),
            keys.queue(export.role),
            ARQ_JOB_PREFIX + job_id,
            keys.event(event_id),
            keys.dedupe(export.request.idempotency_key or ""),
            *map(keys.outbox, self._sinks),
        ]

    async def renew(self, turn: Turn, now: datetime, progress: Progress | None = None) -> bool:
        """Keep a lease, and tell how far the step is. False when the lease has gone."""
        keys, export_id = self._keys, turn.export.export_id
        until_ms = epoch_ms(now + timedelta(seconds=self._terms.lease_s))
        told = progress.model_dump_json() if progress is not None else ""
        renewed = await self._scripts["renew"](
            keys=[keys.lease(export_id), keys.open, keys.export(export_id)],
            args=[turn.owner, _ms(self._terms.lease_s), until_ms, export_id, told],
        )
        return bool(renewed)

    async def release(self, turn: Turn, now: datetime) -> None:
        """Give a lease back without a decision, so that another worker can go on at once."""
        keys, export_id = self._keys, turn.export.export_id
        await self._scripts["release"](
            keys=[keys.lease(export_id), keys.open], args=[turn.owner, epoch_ms(now), export_id]
        )

    async def announce(self, connections: dict[str, str]) -> None:
        """Tell producers which connections there are, and of which platform."""
        if connections:
            await self._redis.hset(self._keys.connections, mapping=connections)

    async def count_open(self) -> int:
        """Exports that have not reached a terminal phase."""
        return int(await self._redis.zcard(self._keys.open))

    async def sweep(self, owner: str, now: datetime) -> list[str]:
        """Bring back overdue exports and forget expired ones, unless another worker does that now.

        Returns:
            The ids of the exports that were brought back.
        """
        if not await self._redis.set(self._keys.sweep, owner, nx=True, px=_ms(self._terms.grace_s)):
            return []
        await self._forget(now)
        late = now - timedelta(seconds=self._terms.grace_s)
        overdue = await self._redis.zrangebyscore(self._keys.open, "-inf", epoch_ms(late), start=0, num=REVIVE_MAX)
        return [export_id for item in overdue if await self._revive(export_id := item.decode(), now)]

    async def _revive(self, export_id: str, now: datetime) -> bool:
        keys, now_ms = self._keys, epoch_ms(now)
        step, status = await self._redis.hmget(keys.export(export_id), "step", "status")
        if step is None or status is None:
            await self._redis.zrem(keys.open, export_id)
            return False
        # Not from the state: it may be of a kind that is not installed at this worker, but at another.
        phase = Status.model_validate_json(status).phase
        queue = keys.queue("transfer" if phase is Phase.TRANSFERRING else "control")
        old, new = keys.job_id(export_id, int(step)), keys.job_id(export_id, int(step) + 1)
        revived = await self._scripts["revive"](
            keys=[
                keys.export(export_id),
                keys.lease(export_id),
                keys.open,
                keys.timeline(export_id),
                queue,
                ARQ_JOB_PREFIX + old,
                ARQ_IN_PROGRESS_PREFIX + old,
                ARQ_RETRY_PREFIX + old,
                ARQ_JOB_PREFIX + new,
            ],
            args=[
                export_id,
                int(step),
                now_ms,
                old,
                new,
                job_payload(export_id, int(step) + 1, now_ms),
                JOB_TTL_MS,
                _note(now, phase, int(step), "taken up again: its worker died, or its queue entry was lost"),
                epoch_ms(now + timedelta(seconds=self._terms.lease_s)),
            ],
        )
        return bool(revived)

    async def _forget(self, now: datetime) -> None:
        """Clear the indexes of exports whose retention has passed; their records expire by themselves."""
        keys = self._keys
        until_ms = epoch_ms(now - timedelta(seconds=self._terms.retention_s))
        gone = await self._redis.zrangebyscore(keys.ended, "-inf", until_ms, start=0, num=1000)
        if gone:
            async with self._client.pipeline(transaction=True) as pipe:
                for index in (keys.ended, keys.created, *map(keys.phase, Phase)):
                    pipe.zrem(index, *gone)
                await pipe.execute()


def _first(request: bytes, status: bytes) -> Export:
    """A record that no worker has touched yet."""
    told = Status.model_validate_json(status)
    return accepted(told.export_id, ExportRequest.model_validate_json(request), told.created_at.astimezone(UTC))


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _note(at: datetime, phase: Phase, step: int, note: str) -> str:
    return json.dumps({"at": isoformat(at), "phase": phase, "step": step, "note": note}, ensure_ascii=False)
