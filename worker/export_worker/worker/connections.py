"""A connection as the worker uses it: driver, policy, bandwidth and request rate."""

from dataclasses import dataclass

from export_worker.lifecycle.transitions import Policy
from export_worker.platforms.base import Driver
from export_worker.redis.claims import ClaimedStep
from export_worker.redis.rate_limit import Rate
from export_worker.step_context import RequestGate
from export_worker.transfer.bandwidth import UNLIMITED, BandwidthLimit


@dataclass(frozen=True, slots=True)
class Connection:
    """A platform that this worker can talk to.

    Args:
        pace: At which its files are read.
        rate: Of its requests; without one they wait for nothing.
    """

    platform: str
    driver: Driver
    policy: Policy
    bandwidth: BandwidthLimit = UNLIMITED
    rate: Rate | None = None

    def request_gate(self, claimed: ClaimedStep) -> RequestGate | None:
        """What the requests of a step wait for. Its claim has counted the first one, but not for a cancel."""
        if self.rate is None:
            return None
        return (
            self.rate.for_transfer()
            if claimed.role == "transfer"
            else self.rate.for_control(0 if claimed.cancel else 1)
        )
