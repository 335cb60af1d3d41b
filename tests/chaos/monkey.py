"""Disturbs a run: kills, freezes and cuts off processes, and lets services fail. The seed decides what happens when.

Calm and storm alternate. In a calm span, processes are killed and nothing else happens, so that the time of a take-over
can be measured. In a storm everything happens.
"""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from chaos.faults import STORE_OUTAGES
from chaos.fleet import Fleet, Slot
from chaos.proxy import DIRECTIONS
from chaos.services import Services
from export_worker.redis.cancellation import cancel_and_wait

DISTURBED_MAX = 2
"""So many workers are frozen or cut off at once. The others must take over within the limit."""

GATEWAY_SHARE = 0.08
"""The share of kills that hit a gateway."""


@dataclass(frozen=True)
class Tempo:
    """How fast things happen.

    Args:
        span_s: The length of each calm and of each storm.
        settle_s: The beginning of a calm span, in which the effects of the storm end.
        kill_s: The minimum and maximum time between two actions.
    """

    span_s: float = 20.0
    settle_s: float = 6.0
    kill_s: tuple[float, float] = (0.5, 1.4)


@dataclass(frozen=True)
class Span:
    """A time on the system clock, in seconds."""

    start_s: float
    end_s: float

    def overlaps(self, start_s: float, end_s: float) -> bool:
        return self.start_s < end_s and start_s < self.end_s


@dataclass
class Monkey:
    """Disturbs the run until it has killed often enough, or the time is over.

    Args:
        kills: The number of kills.
        seconds: The maximum time.
        calms: The spans in which only kills happened, without their first seconds.
        redis_outages: The spans in which Redis did not answer.
    """

    services: Services
    fleet: Fleet
    seed: int
    kills: int
    seconds: float
    pace: Tempo
    calms: list[Span] = field(default_factory=list)
    redis_outages: list[Span] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(f"{self.seed}/monkey")
        self._until_s = time.monotonic() + self.seconds
        self._acts: set[asyncio.Task[None]] = set()
        self._actions: dict[Callable[[], Awaitable[None]], float] = {
            self._kill: 10.0,
            self._freeze: 2.0,
            self._cut: 4.0,
            self._terminate: 1.0,
            self._freeze_redis: 0.5,
            self._restart_redis: 0.25,
            self._store_outage: 1.0,
        }

    @property
    def done(self) -> bool:
        return self.fleet.kills >= self.kills or time.monotonic() > self._until_s

    async def run(self) -> None:
        """Disturbs the run. Afterwards everything works again."""
        try:
            while not self.done:
                await self._calm()
                await self._storm()
        finally:
            await self._end_storm()

    async def _calm(self) -> None:
        start_s = time.time()
        self.fleet.note("calm")
        await self._act_for(self.pace.span_s, lambda: self._kill)
        self.calms.append(Span(start_s + self.pace.settle_s, time.time()))

    async def _storm(self) -> None:
        self.fleet.note("storm")
        self.services.weather.stormy = True
        actions, weights = list(self._actions), list(self._actions.values())
        await self._act_for(self.pace.span_s, lambda: self._rng.choices(actions, weights)[0])
        await self._end_storm()

    async def _act_for(self, seconds: float, choose: Callable[[], Callable[[], Awaitable[None]]]) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s and not self.done:
            await asyncio.sleep(self._rng.uniform(*self.pace.kill_s))
            await self.fleet.replace_exited()
            await choose()()

    async def _end_storm(self) -> None:
        self.services.weather.stormy = False
        await cancel_and_wait(*self._acts)

    def _begin(self, act: Awaitable[None]) -> None:
        """Lets an act last, while others happen."""
        task = asyncio.ensure_future(act)
        self._acts.add(task)
        task.add_done_callback(self._acts.discard)

    async def _kill(self) -> None:
        """Kills a process. Each kind of step is as likely to be hit, however short it is."""
        workers = self._rng.random() >= GATEWAY_SHARE
        by_step: dict[str, list[Slot]] = {}
        for slot in self.fleet.slots.values():
            if slot.is_worker == workers and slot.has_begun:
                for name in {step.name for step in slot.running_steps()} or {"none"}:
                    by_step.setdefault(name, []).append(slot)
        if by_step:
            await self.fleet.kill(self._rng.choice(by_step[self._rng.choice(sorted(by_step))]))

    async def _terminate(self) -> None:
        slots = [slot for slot in self.fleet.slots.values() if slot.has_begun and not slot.disturbed]
        if slots:
            await self.fleet.terminate(self._rng.choice(slots))

    async def _freeze(self) -> None:
        """Freezes a worker, often for longer than its lease."""
        if slot := self._undisturbed():
            self._begin(self._frozen(slot, self._rng.uniform(0.5, 8.0)))

    async def _frozen(self, slot: Slot, seconds: float) -> None:
        frozen = slot.process
        slot.disturbed = True
        self.fleet.note(f"froze {slot.outputs[-1].stem} for {seconds:.1f} s")
        slot.signal(signal.SIGSTOP)
        self.fleet.counts["freezes of workers"] += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            slot.disturbed = False
            if slot.process is frozen:
                slot.signal(signal.SIGCONT)

    async def _cut(self) -> None:
        """Cuts a worker off from one service, in one direction or in both. The bytes arrive late or never."""
        if slot := self._undisturbed():
            service = self._rng.choice(["redis", "s3", "platform"])
            directions = self._rng.choice([DIRECTIONS[:1], DIRECTIONS[1:], DIRECTIONS])
            proxy, seconds, reset = slot.proxies[service], self._rng.uniform(0.3, 6.0), self._rng.random() < 0.5

            async def cut() -> None:
                slot.disturbed = True
                for direction in directions:
                    proxy.hold(direction)
                try:
                    await asyncio.sleep(seconds)
                finally:
                    if reset:
                        proxy.reset()
                    proxy.release()
                    slot.disturbed = False

            what = "both ways" if len(directions) == 2 else f"{directions[0]} only"
            what = f"from {service} ({what}), {'then reset' if reset else 'then late'}"
            self.fleet.counts[f"cuts {what}"] += 1
            self.fleet.note(f"cut {slot.outputs[-1].stem} {what}, for {seconds:.1f} s")
            self._begin(cut())

    def _undisturbed(self) -> Slot | None:
        disturbed = [slot for slot in self.fleet.workers if slot.disturbed]
        others = [slot for slot in self.fleet.workers if slot.has_begun and not slot.disturbed]
        return self._rng.choice(others) if others and len(disturbed) < DISTURBED_MAX else None

    async def _freeze_redis(self) -> None:
        start_s = time.time()
        self.fleet.note("freeze of Redis")
        await self.services.redis.freeze(self._rng.uniform(0.3, 4.0))
        self.redis_outages.append(Span(start_s, time.time()))
        self.fleet.counts["freezes of Redis"] += 1

    async def _restart_redis(self) -> None:
        start_s = time.time()
        self.fleet.note("restart of Redis")
        await self.services.redis.restart(self._rng.choice([signal.SIGTERM, signal.SIGKILL]))
        self.redis_outages.append(Span(start_s, time.time()))
        self.fleet.counts["restarts of Redis"] += 1

    async def _store_outage(self) -> None:
        async def outage() -> None:
            weather = self.services.weather
            weather.store_outage = self._rng.choice(STORE_OUTAGES)
            self.fleet.note(f"outage of S3: {weather.store_outage.code}")
            self.fleet.counts[f"outages of S3 ({weather.store_outage.code})"] += 1
            try:
                await asyncio.sleep(self._rng.uniform(1.0, 6.0))
            finally:
                weather.store_outage = None

        self._begin(outage())
