"""The schedules in Redis, as workers announce and fire them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from arq.connections import ArqRedis

from export_producers.lua import fire_script, own_script
from export_producers.records import Offer
from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.redis_keys import Keys
from export_worker.contract.schedule import ScheduleDefinition, export_id_of, requester_of
from export_worker.redis.client import commands
from export_worker.redis.scripts import Call, Script, decode_document

BATCH = 200
"""Schedules in one round trip: some milliseconds of Redis."""
KEPT_S = 7 * 86_400.0
"""A schedule that no worker has announced for this time is forgotten, with its state."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One time of a schedule that is due.

    Args:
        time: The time that the cron expression has.
        next_due: When the schedule is due after it.
        missed: Earlier times that were not fired.
        is_late: It was missed for too long.
    """

    time: datetime
    next_due: datetime
    missed: Sequence[datetime] = ()
    is_late: bool = False


class FiringQueue:
    """Announces and fires the schedules of one configuration. Raises the errors of redis-py."""

    def __init__(self, redis: ArqRedis, keys: Keys, definitions: Mapping[str, ScheduleDefinition]) -> None:
        self._redis = redis
        self._keys = keys
        self._definitions = definitions
        self._salts: dict[str, str] = {}
        self._fire = Script(redis, fire_script())
        self._announcement = Script(redis, own_script("announce"))

    async def announce(
        self, after: Mapping[str, datetime], due_at: Mapping[str, datetime], now: datetime
    ) -> dict[str, datetime]:
        """Stores the definitions, and forgets schedules that no worker has had for a week.

        Args:
            after: The time until which times are decided, for schedules that Redis does not have.
            due_at: When each schedule is due next.

        Returns:
            The time until which the times of each schedule are decided.
        """
        names, decided = list(self._definitions), dict[str, datetime]()
        for first in range(0, len(names), BATCH):
            decided |= await self._announce(names[first : first + BATCH], after, due_at, now)
        await self._forget(now)
        return decided

    async def _announce(
        self, names: Sequence[str], after: Mapping[str, datetime], due_at: Mapping[str, datetime], now: datetime
    ) -> dict[str, datetime]:
        calls = [self._call(name, after[name], due_at[name], now) for name in names]
        answers = [decode_document(answer) for answer in await self._announcement.answers(calls)]
        self._salts.update({name: answer["salt"] for name, answer in zip(names, answers, strict=True)})
        return {name: _moment(answer["after_ms"]) for name, answer in zip(names, answers, strict=True)}

    def _call(self, name: str, after: datetime, due_at: datetime, now: datetime) -> Call:
        """Returns the call that announces one schedule."""
        definition = self._definitions[name]
        arguments = {
            "name": name,
            "definition": definition.model_dump_json(),
            "cron": definition.cron,
            "timezone": definition.timezone,
            # After a loss of all data, the same times still have the same exports.
            "salt": self._salts.get(name) or uuid4().hex,
            "after_ms": epoch_ms(after),
            "next_ms": epoch_ms(due_at),
            "now_ms": epoch_ms(now),
        }
        return [self._keys.schedule(name), self._keys.schedules], arguments, ()

    async def _forget(self, now: datetime) -> None:
        until_ms = epoch_ms(now - timedelta(seconds=KEPT_S))
        for name in await commands(self._redis).zrangebyscore(self._keys.schedules, 0, until_ms, start=0, num=BATCH):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(self._keys.schedule(name.decode()))
                pipe.zrem(self._keys.schedules, name)
                await pipe.execute()

    async def fire(self, name: str, decision: Decision, now: datetime) -> dict[str, Any]:
        """Decides one time, unless it has been decided before. Returns the answer of `fire.lua`."""
        if name not in self._salts:
            return {"verdict": "unknown"}
        definition, time = self._definitions[name], decision.time
        export_id = export_id_of(self._salts[name], name, time)
        offer = Offer(definition.request_at(time), export_id, now, requested_by=requester_of(name))
        arguments: dict[str, object] = offer.arguments(self._keys) | {
            "firing_ms": epoch_ms(time),
            "time": isoformat(time),
            "missed_ms": [epoch_ms(each) for each in decision.missed] or None,
            "next_ms": epoch_ms(decision.next_due),
            "skips": True if definition.overlap == "skip" else None,
            "is_late": True if decision.is_late else None,
        }
        return await self._fire.document([self._keys.schedule(name), *offer.keys(self._keys)], arguments)


def _moment(stored_ms: str) -> datetime:
    return datetime.fromtimestamp(int(stored_ms) / 1000, UTC)
