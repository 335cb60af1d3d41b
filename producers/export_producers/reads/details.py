"""Reads everything about exports that pages show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from export_producers.explain import explanation
from export_producers.facts import read_facts
from export_producers.reasons import Explanation
from export_producers.statuses import read_statuses, read_timelines
from export_producers.storage import Storage
from export_worker.contract.status import Status


@dataclass(frozen=True, slots=True)
class Details:
    """One export.

    Args:
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
        facts = iter(await read_facts(client, keys, existing, now))
        timelines = iter(await read_timelines(client, keys, [status.export_id for status in existing]))
    return [
        None if status is None else Details(status, explanation(next(facts)), next(timelines)) for status in statuses
    ]
