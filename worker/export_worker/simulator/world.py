"""The state of a running simulator, in one object that all handlers share."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from aiohttp import web

from export_worker.simulator.faults import FaultStore, JobState, Target
from export_worker.simulator.jobs import Job, JobFile, JobStore
from export_worker.simulator.scenario import CallType, Fault, Scenario
from export_worker.simulator.tokens import TokenStore


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """The settings of a simulator.

    Args:
        tokens: Accepted as `Token <t>`, `Bearer <t>` or `<t>`.
        client_secret: The secret for the OAuth grant.
        scenario: The scenario that applies until the control API changes it.
        seed: Simulators with different seeds have different files.
        requests_max: The number of recorded requests. When it is reached, the oldest record is dropped.
    """

    tokens: tuple[str, ...] = ("sim-token",)
    client_secret: str = "sim-secret"  # noqa: S105 - a test value, not a secret
    scenario: Scenario = field(default_factory=Scenario)
    seed: str = "sim"
    requests_max: int = 2000


@dataclass(slots=True)
class RequestRecord:
    """A received request, without the values of its headers.

    Args:
        target: The request target of the HTTP request line, unchanged.
        authorized: Whether the credential was valid; None if the request has no `Authorization`.
        status: The HTTP status of the answer; None until the request is answered.
        body: The decoded body, if the handler reads one.
        sent_bytes: The number of bytes of a file that were written to the connection so far.
        at_s: The time of the request on the simulator's clock.
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
        """Restores the initial state: no jobs, faults, issued tokens or recorded requests."""
        self.run_id = token_hex(8)
        """A part of all job ids, so that ids do not repeat after a reset. A real platform reuses no id, either."""
        self.scenario = self.settings.scenario
        self.faults = FaultStore()
        self.jobs = JobStore()
        self.deleted_groups: set[int] = set()
        self.tokens = TokenStore(self.settings.tokens)
        self.requests: deque[RequestRecord] = deque(maxlen=self.settings.requests_max)
        self.requests_total = 0

    def record(self, request: RequestRecord) -> None:
        """Records a request for the control API."""
        self.requests.append(request)
        self.requests_total += 1

    def stage(self, job: Job) -> str:
        """Returns the current stage of a job, as its platform names it."""
        return job.stage(self.clock(), self.scenario.hold_stage)

    def state(self, job: Job) -> JobState:
        """Returns the current state of a job."""
        return job.state(self.clock(), self.scenario.hold_stage)

    def find_file(self, uri: str) -> tuple[Job, JobFile] | None:
        """Returns the file that a path refers to now, and its job."""
        return self.jobs.find_file(uri, self.clock(), self.scenario.hold_stage)

    def take_fault(self, on: CallType, target: Target, state: JobState | None = None) -> Fault | None:
        """Returns the fault of a call, if it has one. The fault counts the call."""
        return self.faults.take(on, target, flaky=self.scenario.flaky, state=state)


WORLD = web.AppKey("world", World)
RECORD = web.RequestKey("record", RequestRecord)
