"""The records of exports in Redis. All workers work from them.

One record is one hash; `contract.redis_keys` documents its fields. Every change is one script, which writes the record,
its timeline, its indexes and the next queue entry or the outbox together or not at all. So no failure in between can
lose an export. A step costs two round trips: the claim, which returns several steps with their data, and the commit.

A queue entry is its own lease. Claiming a step moves its entry to the moment at which the lease ends. A worker that
lives moves the entry on; the entry of a worker that has died is due again at that moment. The record's version protects
it from a worker that has lost the lease: each claim sets the version to a random number, and a script that is called
with another version changes nothing. This holds even when a fail-over of Redis has lost one of two claims.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import get_args

from arq.connections import ArqRedis

from export_worker.contract.facets import error_facet
from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.past import TIMELINE_MAX, is_packed
from export_worker.contract.redis_keys import Keys, Role
from export_worker.contract.status import Progress
from export_worker.errors import LeaseLostError
from export_worker.lifecycle.decisions import Decision
from export_worker.lifecycle.endings import WORKER_DEATHS_MAX
from export_worker.lifecycle.export import Ended, Export, event_id_of, has_progressed
from export_worker.lifecycle.sharing import takers
from export_worker.lifecycle.windows import Closings
from export_worker.redis.claims import (
    FENCE_BITS,
    NO_SIGNAL,
    ClaimedStep,
    ClaimResult,
    ClaimRoom,
    ConnectionLimits,
    PlatformSignal,
    Renewal,
    Timings,
    read_claimed_step,
)
from export_worker.redis.client import commands
from export_worker.redis.file_lists import encode_lists, encode_record, is_apart
from export_worker.redis.kept_steps import Keep, kept_step
from export_worker.redis.lua import claim_script, commit_script, script
from export_worker.redis.outbox import Taking
from export_worker.redis.scripts import Script
from export_worker.redis.sharing import Sharing
from export_worker.redis.statistics import counted_end
from export_worker.redis.timelines import note_of, packed_body, with_note

TIMELINE_READS_MAX = 5
"""Reads of a timeline for the record of one ended export. It grows while a worker holds the step only if the lease has
ended, and hardly ever twice. After the last read a new note is lost."""

OFFERED_TO_OTHERS_S = 10.0
"""For this time only other workers may claim a step that a worker cannot run, because it cannot read the record or does
not know the connection. Idle workers claim it at once, busy workers when one of their steps ends."""

SCAN_MAX = 1000
"""Queue entries that one claim examines: a few milliseconds of Redis's time when all of them must wait."""

SPARE_S = 5.0
"""Time to renew leases after an outage of Redis. A client tries to connect every 2 s at most, and the heartbeat comes
once a second. A silence that leaves a lease no more than this counts as an outage, but only from `SILENCE_MIN_S` on."""

SILENCE_MIN_S = 3.0
"""The shortest silence of all workers that counts as an outage of Redis: three missed claims, because an idle worker
claims once a second. If the wait between two claims of an idle worker counted, the leases of dead workers would never
end."""

DURATIONS_MAX = 20
"""Durations kept for each kind on each connection: enough for a median, and few enough for every claim to return."""


class Store:
    """Reads and changes records.

    Args:
        redis: Client of the one Redis that holds the namespace.
        keys: The namespace's keys.
        sinks: Names of the sinks that get a completion event whose request names none.
        limits: By connection.
        timings: Durations of leases, retention and the circuit breakers.
        owner: A unique name of this process. It marks the steps that this process cannot run.
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
        self._redis = commands(redis)
        self._owner = owner or secrets.token_hex(8)
        self._sinks = tuple(sinks)
        self._limits = {
            name: {
                "slots": limit.slots,
                "interval_ms": 1000.0 / limit.requests_per_second,
                "deadline_ms": _ms(limit.deadline_s),
            }
            for name, limit in limits.items()
        }
        self._closings = Closings({name: each.windows for name, each in limits.items() if each.windows is not None})
        self._timings = timings
        self._claim: dict[Role, Script] = {role: Script(redis, claim_script(role)) for role in get_args(Role)}
        self._save = Script(redis, commit_script())
        self.sharing = Sharing(redis, keys)
        self._renew, self._release, self._hand_back = (
            Script(redis, script(name)) for name in ("renew", "release", "hand_back")
        )

    async def claim(self, role: Role, room: ClaimRoom, now: datetime) -> ClaimResult:
        """Claims due steps of one role, as many as there is room for."""
        since_s = time.monotonic()
        answer = await self._claim[role].document(self._claim_keys(role), self._claim_arguments(role, room, now))
        steps = []
        for item in answer.get("steps", ()):
            claimed = read_claimed_step(item, role, since_s)
            if claimed is not None:
                steps.append(claimed)
            else:
                await self._return_unbegun(item["export_id"], item["step"], item["version"], role, now, refused=True)
        return ClaimResult(steps, answer.get("next_due_ms"), answer["time_ms"], answer.get("set_back_ms", 0))

    def _claim_keys(self, role: Role) -> list[str]:
        keys = self._keys
        shared = [keys.queue(role), keys.open, keys.aside(role), keys.contact, keys.spared, keys.clock]
        return [*shared, keys.ring] if role == "transfer" else shared

    def _claim_arguments(self, role: Role, room: ClaimRoom, now: datetime) -> dict[str, object]:
        lease_s = self._timings.lease_s
        return {
            "now_ms": epoch_ms(now),
            "now": isoformat(now),
            "role": role,
            "owner": self._owner,
            "max": room.steps,
            "slotless_max": room.slotless,
            "search_max": room.search,
            "running": room.running,
            "connection_max": SCAN_MAX if room.per_connection is None else room.per_connection,
            "closed_stores": {name: asdict(store) for name, store in room.closed_stores.items()} or None,
            "scan_max": SCAN_MAX,
            "lease_ms": _ms(lease_s),
            "aside_ms": _ms(OFFERED_TO_OTHERS_S),
            "spare_ms": _ms(min(SPARE_S, lease_s)),
            "silence_ms": _ms(max(lease_s - SPARE_S, SILENCE_MIN_S)),
            "fence": secrets.randbits(FENCE_BITS),
            "prefix": self._keys.prefix,
            "wake": self._keys.wake(role),
            "timeline_max": TIMELINE_MAX,
            "deaths_max": WORKER_DEATHS_MAX,
            "limits": self._limits,
            "closed": self._closings.closed_ms(now) if role == "control" else None,
        }

    async def hand_back(self, claimed: ClaimedStep, now: datetime, *, refused: bool = False) -> None:
        """Hands back a step that was not begun. Every worker may claim it at once.

        Args:
            refused: This worker cannot run the step now, so only other workers may claim it for some seconds.
        """
        export_id, version = claimed.export.export_id, str(claimed.version)
        await self._return_unbegun(export_id, claimed.step, version, claimed.role, now, refused=refused)

    async def _return_unbegun(
        self, export_id: str, step: int, version: str, role: Role, now: datetime, *, refused: bool = False
    ) -> None:
        keys = self._keys
        offered_until = now + timedelta(seconds=OFFERED_TO_OTHERS_S)
        await self._hand_back.word(
            [keys.export(export_id), keys.queue(role), keys.open, keys.aside(role)],
            {
                "version": version,
                "export_id": export_id,
                "job_id": keys.job_id(export_id, step),
                "now_ms": epoch_ms(now),
                "prefix": keys.prefix,
                "wake": keys.wake(role),
                "refused_by": self._owner if refused else None,
                "offered_until_ms": epoch_ms(offered_until) if refused else None,
            },
        )

    async def checkpoint(
        self, claimed: ClaimedStep, decision: Decision, now: datetime, signal: PlatformSignal = NO_SIGNAL
    ) -> ClaimedStep:
        """Saves a decision in the middle of a step. The worker keeps the step and its lease.

        Returns:
            The step with the export as it was saved.

        Raises:
            LeaseLostError: Another worker has claimed the step; nothing was changed.
        """
        progressed = has_progressed(claimed.export, decision.export)
        await self._save_decision(
            claimed, decision, now, signal, {"mode": "checkpoint", "progressed": progressed or None}
        )
        timeline = with_note(claimed.timeline, note_of(claimed, decision))
        return replace(claimed, export=decision.export, has_lists=is_apart(decision.export), timeline=timeline)

    async def commit(
        self,
        claimed: ClaimedStep,
        decision: Decision,
        now: datetime,
        signal: PlatformSignal = NO_SIGNAL,
        then: Keep | Taking | None = None,
    ) -> ClaimedStep | bytes | None:
        """Saves what a step has decided, ends its lease, and schedules the next step or the completion event.

        Args:
            then: What this worker does at once: the next step of an export, or deliveries of the event of its end.

        Returns:
            The next step or the stored event, if this call has taken it for this worker.

        Raises:
            LeaseLostError: Another worker has claimed the step; nothing was changed.
        """
        export = decision.export
        if isinstance(export.state, Ended):
            taking = then if isinstance(then, Taking) else None
            return await self._end(claimed, decision, now, signal, taking)
        keep = then if isinstance(then, Keep) else None
        following = self._schedule(export, claimed.step + 1) | {
            "mode": "next",
            "step": claimed.step + 1,
            "took_over": decision.took_over or None,
            "cancel_delivered": claimed.cancel or None,
            "keep": keep
            and keep.arguments(self._limits.get(export.request.connection), lease_ms=_ms(self._timings.lease_s)),
        }
        is_kept = await self._save_decision(claimed, decision, now, signal, following) == b"kept"
        timeline = with_note(claimed.timeline, note_of(claimed, decision))
        return kept_step(claimed, export, keep, timeline) if keep is not None and is_kept else None

    async def _end(
        self, claimed: ClaimedStep, decision: Decision, now: datetime, signal: PlatformSignal, taking: Taking | None
    ) -> bytes | None:
        """Ends an export: its record with the whole timeline becomes one packed value. Returns it for deliveries."""
        export, timeline = decision.export, claimed.timeline
        ending: dict[str, object] = {
            "mode": "end",
            "event_id": event_id_of(export),
            "generation": export.generation,
            "step": claimed.step + 1,
            "counted": counted_end(export),
            "shares": takers(export),
            "take": taking and taking.arguments(self._keys, now),
        }
        for attempts_left in reversed(range(TIMELINE_READS_MAX)):
            if timeline is None:
                timeline = await self._read_timeline(export.export_id)
            length = {"timeline_length": len(timeline)} if attempts_left else {}
            body = packed_body(export, claimed.trace_context, timeline, note_of(claimed, decision))
            answer = await self._save_decision(claimed, decision, now, signal, ending | length, body=body)
            if answer != b"timeline_grew":
                return answer if is_packed(answer) else None
            timeline = None
        return None

    async def _read_timeline(self, export_id: str) -> tuple[bytes, ...]:
        return tuple(await self._redis.lrange(self._keys.timeline(export_id), 0, -1))

    def _schedule(self, export: Export, step: int) -> dict[str, object]:
        return {
            "next_role": export.role,
            "next_job_id": self._keys.job_id(export.export_id, step),
            "due_ms": epoch_ms(export.due_at),
            "wake": self._keys.wake(export.role),
        }

    async def _save_decision(
        self,
        claimed: ClaimedStep,
        decision: Decision,
        now: datetime,
        signal: PlatformSignal,
        ending: dict[str, object],
        *,
        body: bytes = b"",
    ) -> bytes:
        export = decision.export
        arguments = self._change(claimed, decision) | signal.arguments(self._timings) | ending
        stored = (body,) if body else encode_record(export)
        keys = self._commit_keys(claimed, export)
        answer = await self._save.value(keys, arguments | {"now_ms": epoch_ms(now)}, *stored)
        if answer == b"lease_lost":
            raise LeaseLostError(f"export {export.export_id} was taken over in step {claimed.step}")
        return answer

    def _change(self, claimed: ClaimedStep, decision: Decision) -> dict[str, object]:
        export, step = decision.export, claimed.step
        return {
            "version": str(claimed.version),
            "export_id": export.export_id,
            "prefix": self._keys.prefix,
            "retention_ms": _ms(self._timings.retention_s),
            **encode_lists(claimed.export if claimed.has_lists else None, export),
            "phase": export.phase,
            "connection": export.request.connection,
            "kind": export.request.kind,
            "error": error_facet(export.phase, export.error),
            "going_ms": epoch_ms(export.set_going_at),
            "note": note_of(claimed, decision),
            "timeline_max": TIMELINE_MAX,
            "role": claimed.role,
            "probe": claimed.probe or None,
            "spared": claimed.spared or None,
            "durations_max": DURATIONS_MAX,
            "job_id": self._keys.job_id(export.export_id, step),
        }

    def _commit_keys(self, claimed: ClaimedStep, export: Export) -> list[str]:
        """The keys of `commit.lua`, in its order."""
        keys, export_id, request = self._keys, export.export_id, export.request
        return [
            keys.export(export_id),
            keys.timeline(export_id),
            keys.open,
            keys.queue(claimed.role),
            keys.queue(export.role),
            keys.dedupe(request.idempotency_key or ""),
            keys.breaker(request.connection),
            keys.breaker(request.connection, claimed.export.step_name),
            keys.rate(request.connection),
            keys.durations(request.connection, request.kind),
            keys.slots(request.connection),
            keys.queue("control"),
            *map(keys.outbox, self._sinks if request.notify is None else request.notify),
        ]

    async def renew(
        self, steps: Sequence[tuple[ClaimedStep, Progress | None]], now: datetime, *, last_s: float | None = None
    ) -> tuple[list[Renewal], str]:
        """Renews the leases of steps in one call, and saves how far their transfers are.

        Args:
            steps: Each step with its progress; None leaves the saved progress unchanged.
            last_s: This is the last renewal, and the leases end after this time; None for a whole lease.

        Returns:
            One answer for each step, in the same order, and the first error of those that failed.
        """
        if not steps:
            return [], ""
        keys = self._keys
        answer = await self._renew.document(
            [keys.open, keys.queue("control"), keys.queue("transfer")],
            {
                "prefix": keys.prefix,
                "until_ms": epoch_ms(now + timedelta(seconds=self._timings.lease_s if last_s is None else last_s)),
                "last": True if last_s is not None else None,
                "steps": [self._renewal(claimed, progress) for claimed, progress in steps],
            },
        )
        return answer["answers"], answer.get("error", "")

    def _renewal(self, claimed: ClaimedStep, progress: Progress | None) -> dict[str, object]:
        export_id = claimed.export.export_id
        fields: dict[str, object] = {
            "export_id": export_id,
            "job_id": self._keys.job_id(export_id, claimed.step),
            "role": claimed.role,
            "version": str(claimed.version),
        }
        # A field that is None would be JSON null, which Lua takes for true.
        return fields if progress is None else fields | {"progress": progress.model_dump_json()}

    async def release(self, claimed: ClaimedStep, now: datetime) -> None:
        """Releases a step that was begun. Another worker resumes it at once."""
        keys, export_id = self._keys, claimed.export.export_id
        await self._release.word(
            [keys.export(export_id), keys.queue(claimed.role), keys.open],
            {
                "version": str(claimed.version),
                "export_id": export_id,
                "job_id": keys.job_id(export_id, claimed.step),
                "now_ms": epoch_ms(now),
                "wake": keys.wake(claimed.role),
            },
        )


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
