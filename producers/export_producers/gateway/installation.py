"""What a gateway knows of the installation that it belongs to, beyond Redis. The wiring passes it in."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from export_producers.triggers.configured import ConfiguredTrigger
from export_worker.contract.status import StoredObject

SettingsCall = Callable[[], dict[str, Any]]
"""Returns the effective configuration without secrets. It imports the drivers of platforms, so it runs in a thread."""
DoctorCall = Callable[[], AsyncGenerator[Mapping[str, Any], None]]
"""Runs the checks of `doctor`. Yields each finding with `about`, `level`, `says` and `fix`, without secrets."""
TriggersCall = Callable[[], Awaitable[Mapping[str, ConfiguredTrigger]]]
"""Reads the triggers that the configuration has at this moment."""

LinkCall = Callable[[str, StoredObject], Awaitable[str]]
"""Makes a link to an object of a connection. Everyone who has the link can download the object."""

LINK_VALID_S = 60
"""Seconds for which a link is valid: enough to begin the download, which may then take longer."""


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
        settings: None if the configuration cannot be shown.
        doctor: None if the packages that call every service are not installed.
        link: None if the packages that call S3 are not installed.
    """

    connections: Mapping[str, ConfiguredConnection] = field(default_factory=dict)
    triggers: TriggersCall | None = None
    settings: SettingsCall | None = None
    doctor: DoctorCall | None = None
    link: LinkCall | None = None
