"""What all keys in Redis have in common: the namespace before them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Namespace:
    """The keys of one namespace. `redis_keys.Keys` has all of them."""

    namespace: str
