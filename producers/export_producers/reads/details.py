"""Reads everything about exports that pages show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from export_producers.explain import Facts, explanation, opening_of
from export_producers.facts import read_facts
from export_producers.reasons import Explanation
from export_producers.statuses import read_statuses, read_timelines
from export_producers.storage import Storage
from export_worker.contract.slowness import eta_of
from export_worker.contract.status import Status


@dataclass(frozen=True, slots=True)
class Details:
    """One export.

    Args:
        status: With the usual durations of its kind.
        reason: Why it waits, or how it ended.
        timeline: Its transitions, the oldest first.
    """

    status: Status
    reason: Explanation
    timeline: Sequence[dict[str, Any]]


async def read_details(storage: Storage, export_ids: Sequence[str]) -> list[Details | None]:
    """Returns the details of exports; None for an export that does not exist.

    Needs four round trips for all of them together, and six if some are transfers.

    Raises:
        ServiceUnreachableError: Redis cannot be reached or refuses a command.
    """
    now = await storage.now()
    client, keys = storage.client, storage.keys
    async with storage.calls():
        statuses = await read_statuses(client, keys, export_ids)
        existing = [status for status in statuses if status is not None]
        facts = await read_facts(client, keys, existing, now)
        timelines = await read_timelines(client, keys, [status.export_id for status in existing])
    found = {
        each.status.export_id: Details(with_usual(each), explanation(each), timeline)
        for each, timeline in zip(facts, timelines, strict=True)
    }
    return [found.get(export_id) for export_id in export_ids]


def with_usual(facts: Facts) -> Status:
    """Returns the status of an export with the usual durations of its kind. Pure."""
    if not facts.durations_s:
        return facts.status
    eta = eta_of(facts.durations_s).model_copy(update={"submits_from": opening_of(facts)})
    return facts.status.model_copy(update={"eta": eta})
