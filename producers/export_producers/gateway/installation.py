"""What a gateway knows of the installation that it belongs to, beyond Redis. The wiring passes it in."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from export_producers.triggers.configured import ConfiguredTrigger

TriggersCall = Callable[[], Awaitable[Mapping[str, ConfiguredTrigger]]]
"""Reads the triggers that the configuration has at this moment."""


@dataclass(frozen=True, slots=True)
class ConfiguredConnection:
    """A section `connections.NAME` of the configuration, without its credential.

    Args:
        address: The setting `base_url`. It has no password and no query string.
        mib_per_second: None for no limit.
    """

    address: str
    requests_per_second: float
    mib_per_second: float | None


@dataclass(frozen=True, slots=True)
class Installation:
    """The configuration of a gateway, and what its packages can do.

    Args:
        connections: Empty if the gateway uses the connections that workers have announced.
        triggers: None if this gateway reads no configuration.
    """

    connections: Mapping[str, ConfiguredConnection] = field(default_factory=dict)
    triggers: TriggersCall | None = None
