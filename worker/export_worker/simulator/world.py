"""Everything that a running simulator knows. One object, given to every handler."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from aiohttp import web

from export_worker.simulator.faults import FaultBook, Standing, Target
from export_worker.simulator.jobs import Job, JobFile, JobStore
from export_worker.simulator.scenario import CallType, Fault, Scenario
from export_worker.simulator.tokens import TokenBook


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """How a simulator is built.

    Args:
        tokens: Accepted as `Token <t>`, `Bearer <t>` or alone.
        client_secret: For the OAuth grant.
        scenario: What holds until something else is told.
        seed: Files of simulators with another seed differ.
        requests_max: So many requests are recorded; older ones are forgotten.
    """

    tokens: tuple[str, ...] = ("sim-token",)
    client_secret: str = "sim-secret"  # noqa: S105 - a simulator has no secrets, only words that look like them
    scenario: Scenario = field(default_factory=Scenario)
    seed: str = "sim"
    requests_max: int = 2000


@dataclass(slots=True)
class RequestRecord:
    """A request as it came, without the values of its headers.

    Args:
        target: The request target of the HTTP request line, untouched.
        authorized: Whether its `Authorization` was right; None without one.
        status: HTTP status of the answer; None as long as there is none.
        body: Of a request that has JSON.
        sent_bytes: Of a file's body, handed to the connection so far.
        at_s: When it came, on the simulator's clock.
    """

    method: str
    target: str
    headers: list[str]
    authorized: bool | None
    status: int | None = None
    body: Any = None
    sent_bytes: int = 0
    at_s: float = 0.0


class World:
    """The state of one simulator."""

    def __init__(self, settings: SimulatorSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.clock = clock
        self.reset()

    def reset(self) -> None:
        """Back to how it was built: no jobs, faults, issued tokens or recorded requests."""
        self.run_id = token_hex(8)
        """Job ids of another run differ, as a restarted platform does not begin to count anew."""
        self.scenario = self.settings.scenario
        self.faults = FaultBook()
        self.jobs = JobStore()
        self.deleted_groups: set[int] = set()
        self.tokens = TokenBook(self.settings.tokens)
        self.requests: deque[RequestRecord] = deque(maxlen=self.settings.requests_max)
        self.requests_total = 0

    def record(self, request: RequestRecord) -> None:
        """Keep a request for those who ask later."""
        self.requests.append(request)
        self.requests_total += 1

    def stage(self, job: Job) -> str:
        """Where a job is now, in its platform's words."""
        return job.stage(self.clock(), self.scenario.hold_stage)

    def standing(self, job: Job) -> Standing:
        """Where a job stands now."""
        return job.standing(self.clock(), self.scenario.hold_stage)

    def owner(self, uri: str) -> tuple[Job, JobFile] | None:
        """Who wrote the file that stands under a path now."""
        return self.jobs.owner(uri, self.clock(), self.scenario.hold_stage)

    def take_fault(self, on: CallType, target: Target, standing: Standing | None = None) -> Fault | None:
        """The fault that a call meets, if any."""
        return self.faults.take(on, target, flaky=self.scenario.flaky, standing=standing)


WORLD = web.AppKey("world", World)
RECORD = web.RequestKey("record", RequestRecord)
