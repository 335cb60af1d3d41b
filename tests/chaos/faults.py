"""The faults of S3, the platform and the webhook receiver, while the weather is stormy; slow answers at any time."""

import random
import time
from collections import Counter
from dataclasses import dataclass, field

from export_worker.simulator.faults import FaultStore, JobState, Target
from export_worker.simulator.scenario import CallType, Fault
from export_worker.simulator.world import World
from support import s3_server

FAILING_SHARE = 0.08
"""The share of calls to S3, and of calls to the platform, that fail in a storm."""
UNCLEAR_SHARE = 0.03
"""The share of submits that the platform executes in a storm, although the worker receives no answer."""
SLOW_SHARE = 0.3
"""The share of calls that are answered late. The rest is so fast that a kill would hardly ever hit one."""
SLOW_S = (0.05, 0.4)
LARGE_SHARE = 0.05
"""The share of exports whose file is large enough for a multipart upload."""
LARGE_BYTES = 9 * 2**20

PLATFORM_FAULTS: dict[CallType, tuple[Fault, ...]] = {
    "submit": (
        Fault(on="submit", fault="throttled", retry_after_s=0),
        Fault(on="submit", fault="throttled", retry_after_s=1),
        Fault(on="submit", fault="error5xx"),
    ),
    "poll": (
        Fault(on="poll", fault="error5xx"),
        Fault(on="poll", fault="malformed"),
        Fault(on="poll", fault="unknown_stage"),
        Fault(on="poll", fault="empty_uris"),
        Fault(on="poll", fault="graphql_errors", message="Internal server error"),
        Fault(on="poll", fault="cut"),
    ),
    "download": (
        Fault(on="download", fault="error5xx"),
        Fault(on="download", fault="cut"),
        Fault(on="download", fault="short"),
        Fault(on="download", fault="error_page"),
    ),
}
UNCLEAR_FAULTS = (
    Fault(on="submit", fault="error5xx", status=504, executed=True),
    Fault(on="submit", fault="cut", executed=True),
    Fault(on="submit", fault="malformed", executed=True),
)
STORE_FAULTS = (s3_server.Refusal(503, "SlowDown"), s3_server.Refusal(500, "InternalError"), s3_server.Lost())
STORE_OUTAGES = (
    s3_server.Refusal(503, "SlowDown"),
    s3_server.Refusal(404, "NoSuchBucket"),
    s3_server.Refusal(403, "RequestTimeTooSkewed"),
    s3_server.Refusal(400, "ExpiredToken"),
)
"""What the store answers to every call for some seconds. Each of them ends without a change at the worker."""


@dataclass
class Weather:
    """Whether calls fail now.

    Args:
        rng: The source of randomness.
        counts: How many calls there were, and how many failed.
        stormy: Whether calls fail.
        store_outage: The answer of the store to every call; None if the store works.
    """

    rng: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    stormy: bool = False
    store_outage: s3_server.Refusal | None = None

    def fails(self, what: str, share: float = FAILING_SHARE) -> bool:
        """Returns whether a call fails, and counts it if so."""
        if not self.stormy or self.rng.random() >= share:
            return False
        self.counts[f"{what} failed"] += 1
        return True

    def delay_s(self, what: str) -> float:
        """Returns how late a call is answered: often not at all."""
        self.counts[what] += 1
        return self.rng.uniform(*SLOW_S) if self.rng.random() < SLOW_SHARE else 0.0

    def s3_rule(self, _call: s3_server.Call) -> s3_server.Refusal | s3_server.Lost | None:
        """Decides about a call to S3, in the proxy's thread of this call."""
        time.sleep(self.delay_s("calls to S3") / 4)
        if self.store_outage is not None:
            self.counts["calls to S3 failed"] += 1
            return self.store_outage
        return self.rng.choice(STORE_FAULTS) if self.fails("calls to S3") else None


class PlatformFaults(FaultStore):
    """Fails calls in a storm with faults that a retry overcomes, and gives some exports a large file."""

    def __init__(self, weather: Weather, world: World) -> None:
        super().__init__()
        self._weather = weather
        self._world = world

    def take(self, on: CallType, target: Target, *, flaky: bool, state: JobState | None = None) -> Fault | None:
        """Returns the fault of this call, if it has one: a scripted one, or a random one."""
        scripted = super().take(on, target, flaky=flaky, state=state)
        if scripted is not None:
            return scripted
        weather = self._weather
        if on == "submit":
            changes = {"file_bytes": LARGE_BYTES if weather.rng.random() < LARGE_SHARE else None}
            self._world.scenario = self._world.scenario.model_copy(update=changes)
            if weather.fails("submits with a lost answer", UNCLEAR_SHARE):
                return weather.rng.choice(UNCLEAR_FAULTS)
        delay_s = weather.delay_s("calls to the platform")
        if on in PLATFORM_FAULTS and weather.fails("calls to the platform"):
            return weather.rng.choice(PLATFORM_FAULTS[on])
        return Fault(on=on, fault="slow", delay_s=delay_s) if delay_s else None
