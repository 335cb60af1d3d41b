"""Who a request is from, and the rate limit of each caller. Pure, except for the clock that the caller passes in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from math import ceil

from multidict import CIMultiDictProxy

from export_producers.gateway.callers.principals import ANONYMOUS, Principal, Role
from export_producers.gateway.options import GatewayOptions


class Callers:
    """Everyone whom the configuration of a gateway allows to call it."""

    def __init__(self, options: GatewayOptions) -> None:
        unnamed = [
            (key, Principal(f"key-{index}", Role.SERVICE, kind="api_key")) for index, key in enumerate(options.api_keys)
        ]
        named = [(key.key, Principal(key.name, key.role, key.connections)) for key in options.keys]
        # Digests have equal lengths. So the time of a comparison reveals nothing, not even the length of a key.
        self._known = [(digest_of(key), principal) for key, principal in unnamed + named]
        self._proxy = options.proxy

    @property
    def are_anonymous(self) -> bool:
        """Whether every caller is accepted, because there are no keys and no proxy."""
        return not self._known and self._proxy is None

    @property
    def count(self) -> int:
        """How many callers share the gateway. All people behind the proxy are one of them."""
        return max(1, len(self._known) + (self._proxy is not None))

    @property
    def known(self) -> Sequence[tuple[bytes, Principal]]:
        """The digest of each key with the caller that it belongs to."""
        return self._known

    def with_key(self, key: str) -> Principal | None:
        """Returns the caller that a key belongs to."""
        digest = digest_of(key)
        # Every key is compared, so that the time does not depend on which key matches.
        matches = [principal for known, principal in self._known if compare_digest(digest, known)]
        return matches[0] if matches else None

    def of(self, headers: CIMultiDictProxy[str], address: str | None) -> Principal | None:
        """Returns the caller of a request; None if it may not call. A key counts more than a user of the proxy.

        Args:
            address: From where the connection comes.
        """
        if self.are_anonymous:
            return ANONYMOUS
        principal = self.with_key(bearer_key(headers))
        if principal is not None:
            return principal
        return self._proxy.person(headers) if self._proxy and self._proxy.trusts(address) else None

    def address_of(self, headers: CIMultiDictProxy[str], address: str | None) -> str:
        """Returns from where a request comes: from an address behind the proxy, or from that of its connection."""
        return (address if self._proxy is None else self._proxy.client(headers, address)) or ""


def bearer_key(headers: CIMultiDictProxy[str]) -> str:
    """Returns the key that a request states; an empty text if it states none."""
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def digest_of(key: str) -> bytes:
    """Returns the digest of a key."""
    return sha256(key.encode(errors="surrogateescape")).digest()


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimit:
    """A token bucket for each caller. Buckets that have become full are forgotten: a new one is full, too.

    Args:
        per_second: Tokens that are added each second: the sustained rate.
        burst: Capacity of the bucket: requests that are allowed at once after a pause.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        """By caller, in the order of their last requests."""

    @property
    def callers(self) -> int:
        """How many callers are remembered."""
        return len(self._buckets)

    def wait_s(self, caller: str) -> int:
        """Takes a token for one request. Returns 0 if there was one, else the whole seconds until there is one."""
        now = self._clock()
        self._forget_full(now)
        bucket = self._buckets.pop(caller, None) or _Bucket(self._burst, now)
        self._buckets[caller] = bucket
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled_at) * self._per_second)
        bucket.filled_at = now
        if bucket.tokens < 1:
            return max(1, ceil((1 - bucket.tokens) / self._per_second))
        bucket.tokens -= 1
        return 0

    def _forget_full(self, now: float) -> None:
        """Forgets callers whose bucket is full by now, however empty it was. Looks at one caller more than that."""
        full_before = now - self._burst / self._per_second
        while self._buckets:
            caller = next(iter(self._buckets))
            if self._buckets[caller].filled_at > full_before:
                return
            del self._buckets[caller]
