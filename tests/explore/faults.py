"""Faults that are seeded into the product, to show that the explorer finds such a fault.

A fault changes the text of a script, or replaces a function. A text must occur exactly once, so that a change of the
product cannot turn a seeded fault off without notice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import pytest

from explore.laboratory import opened
from explore.scenarios import SCENARIOS
from explore.search import Finding, Walk, run, walk
from export_worker.contract.model import epoch_ms
from export_worker.lifecycle import endings, submits
from export_worker.lifecycle.decisions import Decision
from export_worker.lifecycle.export import Ended, event_id_of
from export_worker.redis import record_store
from export_worker.redis.outbox import Delivery, Outbox
from export_worker.redis.record_store import Store
from export_worker.redis.sweeper import Sweeper
from export_worker.s3 import client as s3_client
from export_worker.s3.calls import S3Calls
from export_worker.s3.create_only import CreateOnlyWrite
from export_worker.s3.store import S3Store
from export_worker.sinks import dispatcher
from export_worker.step_context import check_lease
from export_worker.transfer.export_writer import ExportWriter
from export_worker.worker import schedules, step_runner
from export_worker.worker.transfer_step import TransferStep

Patch = pytest.MonkeyPatch


@dataclass(frozen=True, slots=True)
class TextChange:
    """A change of one script.

    Args:
        script: Its name. `claim` is a part of two scripts.
        old: Text that occurs once.
    """

    script: str
    old: str
    new: str

    def apply(self, name: str, source: str) -> str:
        """Returns the changed source, if this is the script."""
        if name.removesuffix("_control").removesuffix("_transfer") != self.script:
            return source
        if source.count(self.old) != 1:
            raise ValueError(f"{self.script}.lua has {self.old!r} {source.count(self.old)} times, and not once")
        return source.replace(self.old, self.new)


def _nothing(_: Patch) -> None:
    pass


@dataclass(frozen=True, slots=True)
class SeededFault:
    """A fault, and the walk that finds it.

    Args:
        name: What is wrong.
        walk: A walk in which it breaks a promise.
        promise: The promise that it breaks: the name of a predicate.
        changes: Changes of scripts.
        replace: Replaces functions.
    """

    name: str
    walk: Walk
    promise: str
    changes: Sequence[TextChange] = ()
    replace: Callable[[Patch], None] = field(default=_nothing)

    def mutate(self, name: str, source: str) -> str:
        """Returns the source of a script with this fault."""
        for change in self.changes:
            source = change.apply(name, source)
        return source


def _walk(scenario: str, what: str = "", *calls: str) -> Walk:
    """Returns all runs of a scenario with one deviation of this kind, at these calls."""
    return Walk(SCENARIOS[scenario], (what,), calls, depth=1 if what else 0)


def _sweep_in_two_steps(patch: Patch) -> None:
    """The sweep lists open exports, and enqueues those without a queue entry with further calls of Redis."""

    async def enqueue_overdue(self: Any, now: datetime) -> list[str]:
        keys, redis, now_ms = self._keys, self._overdue._script.registered_client, epoch_ms(now)
        for member in await redis.zrangebyscore(keys.open, "-inf", "+inf"):
            export_id = member.decode()
            (step,) = await redis.hmget(keys.export(export_id), "step")
            await redis.zadd(keys.queue("control"), {keys.job_id(export_id, int(step or 0)): now_ms}, nx=True)
        return []

    patch.setattr(Sweeper, "_enqueue_overdue", enqueue_overdue)


def _check_lease_once(patch: Patch) -> None:
    """The lease is checked before a call of boto3, and not before each attempt."""
    call, write = S3Calls.call, S3Calls.write

    async def checked_call(self: S3Calls, *arguments: Any, **options: Any) -> Any:
        check_lease()
        return await call(self, *arguments, **options)

    async def checked_write(self: S3Calls, *arguments: Any, **options: Any) -> Any:
        check_lease()
        return await write(self, *arguments, **options)

    patch.setattr(S3Calls, "call", checked_call)
    patch.setattr(S3Calls, "write", checked_write)
    patch.setattr(s3_client, "check_lease", lambda: None)


def _do_not_look_for_the_seal(patch: Patch) -> None:
    async def confirm_end(_: TransferStep, __: Any, ending: Decision, ___: Any) -> Decision:
        return ending

    patch.setattr(TransferStep, "confirm_end", confirm_end)


def _keep_earlier_files(patch: Patch) -> None:
    async def remove_earlier_files(*_: Any) -> int:
        return 0

    patch.setattr(ExportWriter, "remove_earlier_files", remove_earlier_files)


def _count_idle_claims_as_outages(patch: Patch) -> None:
    patch.setattr(record_store, "SILENCE_MIN_S", 0.5)


def _acknowledge_before_delivery(patch: Patch) -> None:
    deliver = dispatcher._SinkDispatcher._deliver

    async def acknowledge_first(self: Any, delivery: Delivery) -> None:
        await self._outbox.acknowledge(self._name, delivery.event_id)
        await deliver(self, delivery)

    patch.setattr(dispatcher._SinkDispatcher, "_deliver", acknowledge_first)


def _write_the_event_later(patch: Patch) -> None:
    """The commit saves the end, and a second call adds the event to the outboxes."""
    commit = Store.commit

    async def commit_in_two(self: Any, claimed: Any, decision: Decision, now: datetime, *rest: Any) -> None:
        await commit(self, claimed, decision, now, *rest)
        if isinstance(decision.export.state, Ended):
            event_id = event_id_of(decision.export)
            async with self._save._script.registered_client.pipeline(transaction=True) as pipe:
                for sink in self._sinks:
                    pipe.zadd(self._keys.outbox(sink), {event_id: epoch_ms(now)})
                await pipe.execute()

    patch.setattr(Store, "commit", commit_in_two)


def _hold_deliveries_for_a_minute(patch: Patch) -> None:
    patch.setitem(cast("Any", Outbox.__init__).__kwdefaults__, "lease_s", 60.0)


def _do_not_count_unclear_submits(patch: Patch) -> None:
    patch.setattr(endings, "with_unclear_submit", lambda export: export)


def _do_not_save_submits(patch: Patch) -> None:
    patch.setattr(submits, "with_open_submit", lambda export, _: export)


def _do_not_count_open_submits(patch: Patch) -> None:
    patch.setattr(step_runner, "count_lost_submits", lambda _: None)


def _leave_uploads_open(patch: Patch) -> None:
    async def abort_leftovers(*_: Any) -> int:
        return 0

    patch.setattr(S3Store, "abort_leftovers", abort_leftovers)


def _seal_before_the_manifest(patch: Patch) -> None:
    write_success = ExportWriter.write_success

    async def seal_first(self: Any, export: Any, state: Any) -> Any:
        await self._store_document(export, self._layout.key(export, "_SUCCESS"), b"", "application/octet-stream")
        return await write_success(self, export, state)

    async def has_document(self: Any, export: Any, name: str) -> bool:
        return name != "_SUCCESS" or await has_one(self, export, name)

    has_one = ExportWriter._has_document
    patch.setattr(ExportWriter, "write_success", seal_first)
    patch.setattr(ExportWriter, "_has_document", has_document)


def _adopt_any_object(patch: Patch) -> None:
    async def is_equal(*_: Any) -> bool:
        return True

    patch.setattr(CreateOnlyWrite, "_is_equal", is_equal)


ENTRY_CHECK = "if record[1] ~= step or ended[record[3]] then"
VERSION_CHECK = "if record[1] ~= args.version then"


def _confirm_no_firing(patch: Patch) -> None:
    patch.setattr(schedules, "CONFIRM_S", 1000.0)


SEEDED_FAULTS = (
    SeededFault(
        "the sweep revives ended exports, and a claim takes them",
        _walk("plain", "late", "ZRANGEBYSCORE"),
        "no_litter",
        [TextChange("claim", ENTRY_CHECK, "if false then")],
        _sweep_in_two_steps,
    ),
    SeededFault(
        "the lease is checked before the first attempt only",
        _walk("retry", "freeze", "DeleteObject"),
        "success_means_complete",
        replace=_check_lease_once,
    ),
    SeededFault(
        "a cancel does not look for _SUCCESS",
        _walk("cancel-after-fault", "kill", "commit"),
        "success_means_complete",
        replace=_do_not_look_for_the_seal,
    ),
    SeededFault(
        "a deadline does not look for _SUCCESS",
        _walk("deadline", "kill", "commit"),
        "success_means_complete",
        replace=_do_not_look_for_the_seal,
    ),
    SeededFault(
        "a retry keeps the files of the earlier attempt",
        _walk("retry-renamed"),
        "success_means_complete",
        replace=_keep_earlier_files,
    ),
    SeededFault(
        "an idle worker's claim counts as the end of an outage",
        _walk("plain", "kill", "platform"),
        "every_export_ends",
        replace=_count_idle_claims_as_outages,
    ),
    SeededFault(
        "a commit does not check the version",
        _walk("plain", "freeze", "platform", "commit"),
        "every_export_ends",
        [TextChange("commit", VERSION_CHECK, f"{VERSION_CHECK[:-5]} and args.mode == 'checkpoint' then")],
    ),
    SeededFault(
        "a checkpoint does not check the version",
        _walk("parts", "freeze", "commit"),
        "every_export_ends",
        [TextChange("commit", VERSION_CHECK, f"{VERSION_CHECK[:-5]} and args.mode ~= 'checkpoint' then")],
    ),
    SeededFault(
        "a renewal revives a lost lease",
        _walk("retry", "freeze", "HeadObject"),
        "success_means_complete",
        [TextChange("renew", "if record[1] ~= step.version then", "if false then")],
    ),
    SeededFault(
        "a submit is not saved before it is sent",
        _walk("plain", "stop", "platform"),
        "one_operation",
        replace=_do_not_save_submits,
    ),
    SeededFault(
        "a step does not count the submit of a dead worker",
        _walk("plain", "kill", "platform", "commit"),
        "one_operation",
        replace=_do_not_count_open_submits,
    ),
    SeededFault(
        "a submit whose answer was lost is repeated without notice",
        _walk("plain", "lose", "platform"),
        "one_operation",
        replace=_do_not_count_unclear_submits,
    ),
    SeededFault(
        "a commit forgets a cancel that came after the claim",
        _walk("cancel", "canceller", "platform"),
        "a_cancelled_export_does_not_continue",
        [TextChange("commit", "'HDEL', export, 'progress',", "'HDEL', export, 'cancel', 'progress',")],
    ),
    SeededFault(
        "a cancel takes a step from a worker that is stopping",
        _walk("cancel-after-fault", "hang", "PutObject"),
        "a_held_step_has_one_worker",
        [TextChange("cancel", "(not released or released == 'ending')", "not released")],
    ),
    SeededFault(
        "a claim leaves its entry in the queue",
        _walk("plain"),
        "a_held_step_has_one_worker",
        [TextChange("claim", "export.id, now + args.lease_ms)", "export.id, now)")],
    ),
    SeededFault(
        "an event leaves the outbox before its delivery",
        _walk("plain", "kill", "sink"),
        "one_event_for_each_end",
        replace=_acknowledge_before_delivery,
    ),
    SeededFault(
        "the event is written after the end",
        _walk("plain", "kill", "redis ZADD"),
        "one_event_for_each_end",
        [TextChange("commit", "ipairs(outboxes)", "ipairs({})")],
        _write_the_event_later,
    ),
    SeededFault(
        "a later event overtakes an earlier one",
        _walk("retry-after-fault", "kill", "sink"),
        "one_event_for_each_end",
        [TextChange("take_deliveries", "elseif must_wait(id) then", "elseif false then")],
    ),
    SeededFault(
        "the events of a dead worker wait for a minute",
        _walk("plain", "kill", "sink"),
        "events_are_prompt",
        replace=_hold_deliveries_for_a_minute,
    ),
    SeededFault(
        "the deaths of workers in a step are not counted",
        _walk("poison"),
        "every_export_ends",
        [TextChange("claim", "redis.call('HINCRBY', key, 'lost', 1), 'died'", "1, 'died'")],
    ),
    SeededFault(
        "uploads of dead workers stay open",
        _walk("cancel-parts", "kill", "commit", "s3"),
        "no_litter",
        replace=_leave_uploads_open,
    ),
    SeededFault(
        "_SUCCESS is written before the manifest, and counts as its proof",
        _walk("cancel-after-fault", "kill", "PutObject"),
        "success_means_complete",
        replace=_seal_before_the_manifest,
    ),
    SeededFault(
        "an object of an earlier attempt is adopted unseen",
        _walk("retry"),
        "success_means_complete",
        replace=_adopt_any_object,
    ),
    SeededFault(
        "a worker fires a time that another one has fired",
        _walk("scheduled", "slow", "fire"),
        "each_time_is_fired_once",
        [TextChange("fire", "args.firing_ms <= after_ms", "false")],
    ),
    SeededFault(
        "a time that Redis has forgotten is not fired again",
        _walk("scheduled-fail-over", "fail-over", "redis commit"),
        "each_time_is_fired_once",
        replace=_confirm_no_firing,
    ),
)


def hunt(fault: SeededFault, redis_url: str) -> tuple[Finding, int]:
    """Seeds a fault and walks until a promise is broken. Returns the last run, and how many there were."""
    with pytest.MonkeyPatch.context() as patch:
        fault.replace(patch)
        with opened(redis_url, fault.mutate) as laboratory:
            found = next((found for found in walk(laboratory, fault.walk) if found.broken), None)
            return found or run(laboratory, fault.walk.scenario), laboratory.runs
