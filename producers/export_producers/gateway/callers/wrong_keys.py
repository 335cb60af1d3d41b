"""The limit of wrong keys of each address, for calls and for logins together."""

from collections.abc import Callable
from dataclasses import dataclass, field

WRONG_KEYS_MAX = 10
"""Wrong keys that one address may send in a minute."""
WINDOW_S = 60.0
ADDRESSES_MAX = 10_000
"""Addresses that are remembered. Beyond them, the oldest is forgotten."""


@dataclass(slots=True)
class WrongKeys:
    """Counts the wrong keys of each address in the current minute."""

    clock: Callable[[], float]
    counts: dict[str, tuple[float, int]] = field(default_factory=dict)

    def wait_s(self, address: str) -> int:
        """Returns 0 if an address may send a wrong key, else the whole seconds until it may."""
        started, count = self.counts.get(address, (0.0, 0))
        left_s = started + WINDOW_S - self.clock()
        return max(1, round(left_s)) if count >= WRONG_KEYS_MAX and left_s > 0 else 0

    def add(self, address: str) -> None:
        """Counts a wrong key."""
        now = self.clock()
        started, count = self.counts.pop(address, (now, 0))
        if now - started >= WINDOW_S:
            started, count = now, 0
        self.counts[address] = (started, count + 1)
        if len(self.counts) > ADDRESSES_MAX:
            del self.counts[next(iter(self.counts))]
