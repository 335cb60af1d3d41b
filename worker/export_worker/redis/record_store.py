"""The export's record in Redis: the truth that every worker works from.

One record is one hash (its fields are told in `contract.keys`). Every change is one script: the record, its timeline,
its indexes, the next queue entry or the outbox, together or not at all, so there is no gap in which an export could be
lost. A step costs two round trips: the claim, which brings several steps at once with all that they need, and the
commit.

A queue entry is its own lease. Claiming a step moves its entry to the moment at which the lease ends; while the worker
lives it moves the entry on; when it dies the entry is due again by itself. The record's version is the fence: a claim
sets it to a random number, so whoever held the step before can change nothing any more, even when a fail-over of Redis
has forgotten one of both claims.
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

import structlog
from arq.connections import ArqRedis
from pydantic import ValidationError
from redis.commands.core import AsyncScript

from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.queue_jobs import JOB_TTL_MS, job_payload
from export_worker.contract.redis_keys import Keys, Role
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Phase, Progress, Status
from export_worker.contract.trace import TraceContext
from export_worker.errors import LeaseLostError
from export_worker.lifecycle.decisions import Decision
from export_worker.lifecycle.export import Ended, Export, accepted, event_of, status_of
from export_worker.redis.claims import NO_SIGNAL, ClaimedStep, ClaimResult, ConnectionLimits, PlatformSignal, Timings
from export_worker.redis.lua import script

_log = structlog.get_logger(__name__)

TIMELINE_MAX = 200
"""Transitions kept of one export: some 20 KiB at the worst, and far more than a healthy one has."""

OFFERED_TO_OTHERS_S = 10.0
"""How long only others are offered a step that a worker can do nothing for: it cannot read the record, or does not know
the connection. Idle workers look at once, busy ones when a step ends."""

SCAN_MAX = 1000
"""Entries looked at in one claim: a few milliseconds of Redis's time, when all of them must wait for something."""

SPARE_S = 5.0
"""What living workers need to renew their leases after an outage of Redis: their clients look for it every two seconds
at the latest, and the heartbeat comes once a second. A silence that leaves no more than this of a lease counts as an
outage, but not one below half a lease: workers claim once a second only."""

FENCE_BITS = 52
"""Of the random number that fences a claim; Lua's numbers are exact up to 53."""

DURATIONS_MAX = 20
"""Durations kept for each kind on each connection: enough for a median, small enough to travel with each claim."""


class Store:
    """Reads and changes records.

    Args:
        redis: Client of the one Redis that holds the namespace.
        keys: The namespace's keys.
        sinks: Names of the sinks that a completion event goes to unless the request names its own.
        limits: By connection.
        terms: How long things live.
        owner: This process, in what it refuses; unique.
    """

    def __init__(
        self,
        redis: ArqRedis,
        keys: Keys,
        sinks: Sequence[str],
        limits: Mapping[str, ConnectionLimits],
        timings: Timings,
        *,
        owner: str = "",
    ) -> None:
        self._keys = keys
        self._owner = owner or secrets.token_hex(8)
        self._sinks = tuple(sinks)
        self._limits = {
            name: {
                "slots": limit.slots,
                "interval": 1000.0 / limit.requests_per_second,
                "patience": _ms(limit.patience_s),
            }
            for name, limit in limits.items()
        }
        self._timings = timings
        self._scripts = {
            name: redis.register_script(script(name)) for name in ("commit", "renew", "release", "give_back")
        }
        self._claim: dict[Role, AsyncScript] = {
            role: redis.register_script(script("claim", f"claim_{role}")) for role in get_args(Role)
        }

    async def claim(self, role: Role, most: int, now: datetime) -> ClaimResult:
        """Take up to `most` due steps of one role."""
        lease_s, since_s = self._timings.lease_s, time.monotonic()
        order = {
            "now": epoch_ms(now),
            "at": isoformat(now),
            "lease": _ms(lease_s),
            "spare": _ms(min(SPARE_S, lease_s)),
            "silence": _ms(max(lease_s - SPARE_S, lease_s / 2)),
            "max": most,
            "scan": SCAN_MAX,
            "timeline_max": TIMELINE_MAX,
            "prefix": self._keys.prefix,
            "role": role,
            "owner": self._owner,
            "fence": secrets.randbits(FENCE_BITS),
            "aside": _ms(OFFERED_TO_OTHERS_S),
            "limits": self._limits,
        }
        keys = [self._keys.queue(role), self._keys.open, self._keys.aside(role)]
        next_due, redis_ms, taken = await self._claim[role](keys=keys, args=[json.dumps(order)])
        steps = []
        for item in taken:
            claimed = _read_step(item, role, since_s)
            if claimed is not None:
                steps.append(claimed)
            else:
                await self._give_back(item[0].decode(), int(item[1]), int(item[2]), role, now, refused=True)
        return ClaimResult(steps, int(float(next_due)) if next_due else None, int(redis_ms))

    async def hand_back(self, claimed: ClaimedStep, now: datetime) -> None:
        """Give a step back that was never begun, for anybody to take at once."""
        await self._give_back(claimed.export.export_id, claimed.step, claimed.version, claimed.role, now)

    async def _give_back(
        self, export_id: str, step: int, version: int, role: Role, now: datetime, *, refused: bool = False
    ) -> None:
        keys, job_id = self._keys, self._keys.job_id(export_id, step)
        refusal: list[str | int] = (
            [self._owner, epoch_ms(now + timedelta(seconds=OFFERED_TO_OTHERS_S))] if refused else ["", 0]
        )
        await self._scripts["give_back"](
            keys=[keys.export(export_id), keys.queue(role), keys.open, keys.aside(role)],
            args=[version, export_id, job_id, keys.prefix, epoch_ms(now), keys.wake(role), *refusal],
        )

    async def checkpoint(
        self, claimed: ClaimedStep, decision: Decision, now: datetime, signal: PlatformSignal = NO_SIGNAL
    ) -> ClaimedStep:
        """Save a decision in the middle of a step, and go on holding it.

        Raises:
            LeaseLostError: Somebody else has the export; nothing was changed.
        """
        await self._commit(claimed, decision, self._signal_fields(claimed, signal, now) | {"mode": "keep"})
        return replace(claimed, export=decision.export)

    async def commit(
        self, claimed: ClaimedStep, decision: Decision, now: datetime, signal: PlatformSignal = NO_SIGNAL
    ) -> None:
        """Save what a step decided, schedule the next step or put the completion event out, end the lease.

        Raises:
            LeaseLostError: Somebody else has the export; nothing was changed.
        """
        export = decision.export
        ending = self._signal_fields(claimed, signal, now) | {
            "old_job": self._keys.job_id(export.export_id, claimed.step)
        }
        if isinstance(export.state, Ended):
            event = event_of(export, self._keys.namespace, claimed.trace)
            ending |= {"mode": "end", "event_id": event.id, "event": event.model_dump_json()}
        else:
            heard = {"cancel_heard": "1" if claimed.cancel else ""}
            ending |= {"mode": "next"} | heard | self._schedule(export, claimed.step + 1, now)
        await self._commit(claimed, decision, ending)

    def _signal_fields(self, claimed: ClaimedStep, signal: PlatformSignal, now: datetime) -> dict[str, str]:
        return {
            "now_ms": str(epoch_ms(now)),
            "connection": claimed.export.request.connection,
            "old_role": claimed.role,
            "kind": claimed.export.request.kind,
            "platform": signal.platform or "",
            "probe": "1" if claimed.probe else "",
            "pause_ms": str(_ms(signal.pause_s)),
            "duration_ms": "" if signal.duration_s is None else str(_ms(signal.duration_s)),
            "durations_max": str(DURATIONS_MAX),
            "breaker_threshold": str(self._timings.breaker_threshold),
            "breaker_first_ms": str(_ms(self._timings.breaker_first_s)),
            "breaker_max_ms": str(_ms(self._timings.breaker_max_s)),
        }

    def _schedule(self, export: Export, step: int, now: datetime) -> dict[str, str]:
        due_ms, now_ms = epoch_ms(export.due_at), epoch_ms(now)
        return {
            "role": export.role,
            "due_ms": str(due_ms),
            "job_id": self._keys.job_id(export.export_id, step),
            "job": job_payload(export.export_id, step, now_ms),
            "job_ttl_ms": str(max(due_ms - now_ms, 0) + JOB_TTL_MS),
        }

    async def _commit(self, claimed: ClaimedStep, decision: Decision, ending: dict[str, str]) -> None:
        export = decision.export
        change = {
            "version": str(claimed.version),
            "export_id": export.export_id,
            "prefix": self._keys.prefix,
            "phase": export.phase,
            "state": export.model_dump_json(exclude_none=True),
            "status": status_of(export).model_dump_json(),
            "created_ms": str(epoch_ms(export.created_at)),
            "going_ms": str(epoch_ms(export.set_going_at)),
            "note": timeline_entry(export.updated_at, export.phase, claimed.step, decision.note)
            if decision.note
            else "",
            "timeline_max": str(TIMELINE_MAX),
            "retention_ms": str(_ms(self._timings.retention_s)),
        }
        keys = self._commit_keys(claimed, export, ending.get("event_id", ""))
        if not await self._scripts["commit"](keys=keys, args=[json.dumps(change | ending)]):
            raise LeaseLostError(f"export {export.export_id} was taken over in step {claimed.step}")

    def _commit_keys(self, claimed: ClaimedStep, export: Export, event_id: str) -> list[str]:
        keys, export_id = self._keys, export.export_id
        return [
            keys.export(export_id),
            keys.timeline(export_id),
            keys.open,
            keys.created,
            keys.ended,
            keys.phase(export.phase),
            keys.queue(claimed.role),
            keys.queue(export.role),
            keys.event(event_id),
            keys.dedupe(export.request.idempotency_key or ""),
            keys.events,
            *map(keys.outbox, self._sinks if export.request.notify is None else export.request.notify),
        ]

    async def renew(
        self, claimed: ClaimedStep, now: datetime, progress: Progress | None = None
    ) -> Literal["kept", "cancel"] | None:
        """Keep a step, and tell how far it is. None when it has gone; `cancel` when somebody asks for its end."""
        keys, export_id = self._keys, claimed.export.export_id
        until_ms = epoch_ms(now + timedelta(seconds=self._timings.lease_s))
        told = progress.model_dump_json() if progress is not None else ""
        answer = await self._scripts["renew"](
            keys=[keys.export(export_id), keys.queue(claimed.role), keys.open],
            args=[claimed.version, until_ms, export_id, keys.job_id(export_id, claimed.step), told],
        )
        return (None, "kept", "cancel")[int(answer)]

    async def release(self, claimed: ClaimedStep, now: datetime) -> None:
        """Give a step back without a decision, so that another worker can go on at once."""
        keys, export_id = self._keys, claimed.export.export_id
        await self._scripts["release"](
            keys=[keys.export(export_id), keys.queue(claimed.role), keys.open],
            args=[
                claimed.version,
                epoch_ms(now),
                export_id,
                keys.job_id(export_id, claimed.step),
                keys.wake(claimed.role),
            ],
        )


def _read_step(item: list[Any], role: Role, since_s: float) -> ClaimedStep | None:
    """What the script took, read. None for a record that this version cannot read: another may."""
    export_id, step, version, claims, probe, request, status, state, cancel, retry, durations, trace = item
    try:
        export = Export.model_validate_json(state) if state else _first(request, status)
    except ValidationError as error:
        _log.error("record.unreadable", export_id=export_id.decode(), problems=error.error_count())
        return None
    return ClaimedStep(
        export,
        int(version),
        int(step),
        role,
        claims=int(claims),
        probe=bool(probe),
        cancel=bool(cancel),
        retry=retry.decode(),
        durations_s=tuple(int(duration) / 1000 for duration in durations),
        trace=_traceparent(trace),
        since_s=since_s,
    )


def _traceparent(trace: bytes) -> str:
    """What the producer noted; without one that can be read the export goes on all the same."""
    try:
        return TraceContext.model_validate_json(trace).traceparent if trace else ""
    except ValidationError:
        return ""


def _first(request: bytes, status: bytes) -> Export:
    """A record that no worker has touched yet."""
    told = Status.model_validate_json(status)
    return accepted(told.export_id, ExportRequest.model_validate_json(request), told.created_at.astimezone(UTC))


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def timeline_entry(at: datetime, phase: Phase, step: int, note: str) -> str:
    """One transition as the timeline keeps it."""
    return json.dumps({"at": isoformat(at), "phase": phase, "step": step, "note": note}, ensure_ascii=False)
