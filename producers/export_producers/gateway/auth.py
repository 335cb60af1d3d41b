"""API keys and the rate limit of each key. Pure, except for the clock that the caller passes in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from math import ceil

ANONYMOUS = -1
"""The caller of a gateway that has no keys."""


class ApiKeys:
    """The bearer keys of the gateway.

    Args:
        keys: In clear. Without keys, every caller is accepted.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        # Digests have equal lengths. So the time of a comparison reveals nothing, not even the length of a key.
        self._digests = [_digest(key) for key in keys]

    @property
    def digests(self) -> Sequence[bytes]:
        """The SHA-256 of each key."""
        return self._digests

    def index(self, key: str) -> int | None:
        """Returns the index of a key, or None if it is not valid."""
        digest = _digest(key)
        # Every key is compared, so that the time does not depend on which key matches.
        matches = [compare_digest(digest, known) for known in self._digests]
        return matches.index(True) if any(matches) else None

    def caller(self, authorization: str | None) -> int | None:
        """Returns the index of the key in the header `Authorization`, or None if it holds no valid key."""
        if not self._digests:
            return ANONYMOUS
        scheme, _, key = (authorization or "").partition(" ")
        index = self.index(key.strip())
        return index if scheme.lower() == "bearer" else None


def _digest(key: str) -> bytes:
    return sha256(key.encode(errors="surrogateescape")).digest()


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimit:
    """A token bucket for each caller.

    Args:
        per_second: Tokens that are added each second: the sustained rate.
        burst: Capacity of the bucket: requests that are allowed at once after a pause.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: dict[int, _Bucket] = {}

    def wait_s(self, caller: int) -> int:
        """Takes a token for one request. Returns 0 if there was one, else the whole seconds until there is one."""
        now = self._clock()
        bucket = self._buckets.setdefault(caller, _Bucket(self._burst, now))
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled_at) * self._per_second)
        bucket.filled_at = now
        if bucket.tokens < 1:
            return max(1, ceil((1 - bucket.tokens) / self._per_second))
        bucket.tokens -= 1
        return 0
