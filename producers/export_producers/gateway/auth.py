"""Who may call, and how often. Pure but for the clock that it is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from math import ceil

NOBODY = -1
"""Whoever calls a gateway without keys."""


class ApiKeys:
    """The bearer keys.

    Args:
        keys: In clear; without any, everyone may call.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        # Digests have one length, so that not even the length of a key shows in the time that a comparison takes.
        self._digests = [_digest(key) for key in keys]

    def caller(self, authorization: str | None) -> int | None:
        """Which key the header `Authorization` holds; None when it is none of ours."""
        if not self._digests:
            return NOBODY
        scheme, _, given = (authorization or "").partition(" ")
        digest = _digest(given.strip())
        # All are compared, whichever it is.
        same = [compare_digest(digest, known) for known in self._digests]
        return same.index(True) if scheme.lower() == "bearer" and any(same) else None


def _digest(key: str) -> bytes:
    return sha256(key.encode(errors="surrogateescape")).digest()


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimit:
    """A bucket of requests for each caller, refilled at a steady rate.

    Args:
        per_second: Requests a second, for long.
        burst: Requests at once, after a rest.
        clock: Seconds, from whenever.
    """

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: dict[int, _Bucket] = {}

    def wait_s(self, caller: int) -> int:
        """Count one request; 0 lets it through, else it may come again in so many whole seconds."""
        now = self._clock()
        bucket = self._buckets.setdefault(caller, _Bucket(self._burst, now))
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled_at) * self._per_second)
        bucket.filled_at = now
        if bucket.tokens < 1:
            return max(1, ceil((1 - bucket.tokens) / self._per_second))
        bucket.tokens -= 1
        return 0
