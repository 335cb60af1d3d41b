"""Builds what the gateway needs from the configuration.

Drivers are large, and few calls of a gateway need one. Their modules are imported with the first such call.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

from export_producers.gateway.callers.principals import Role
from export_producers.gateway.callers.proxy import ProxyOptions
from export_producers.gateway.context import CatalogCall
from export_producers.gateway.installation import ConfiguredConnection, DoctorCall, Installation
from export_producers.gateway.options import GatewayOptions, NamedKey
from export_worker.config import Config
from export_worker.config.gateway import GatewayKey
from export_worker.credentials import Redactor, reveal
from export_worker.errors import ConfigError
from export_worker.platforms.settings import ConnectionSettings
from export_worker.wiring.links import link_call
from export_worker.wiring.trigger_templates import read_triggers


def gateway_options(config: Config) -> GatewayOptions:
    """Returns the settings of the section `gateway`, with its keys in clear text.

    Raises:
        ConfigError: A key cannot be read.
    """
    settings = config.gateway
    unnamed = tuple(reveal(key, f"gateway.api_keys.{index}") for index, key in enumerate(settings.api_keys))
    named = tuple(_named_key(name, key) for name, key in settings.keys.items())
    proxy = settings.proxy and ProxyOptions(
        user_header=settings.proxy.user_header,
        groups_header=settings.proxy.groups_header,
        trusted=settings.proxy.trusted,
        roles={group: Role(role) for group, role in settings.proxy.roles.items()},
    )
    console = {"console": settings.console and settings.console.enabled, "presign": settings.allows_links}
    given = {name: value for name, value in vars(settings).items() if name != "queues"}
    return GatewayOptions(**(given | console | {"api_keys": unnamed, "keys": named, "proxy": proxy}))


def _named_key(name: str, key: GatewayKey) -> NamedKey:
    connections = None if key.connections is None else frozenset(key.connections)
    return NamedKey(name, reveal(key.key, f"gateway.keys.{name}.key"), Role(key.role), connections)


def installation_of(config: Config, redactor: Redactor, doctor: DoctorCall) -> Installation:
    """Returns what the gateway shows of the configuration.

    Args:
        doctor: Runs the checks. It needs the extra `worker`.
    """
    settings = partial(_shown_settings, config, redactor)
    link = link_call(config, redactor) if config.gateway.allows_links else None
    return Installation(
        _Connections(config.connections), read_triggers, settings, doctor if _calls_platforms() else None, link
    )


class _Connections(Mapping[str, ConfiguredConnection]):
    """The configured connections. The driver of a platform, which has its rate, is imported when one is shown."""

    def __init__(self, configured: Mapping[str, ConnectionSettings]) -> None:
        self._configured = configured

    def __getitem__(self, name: str) -> ConfiguredConnection:
        each = self._configured[name]
        return ConfiguredConnection(each.base_url, _requests_per_second(name, each), each.mib_per_second)

    def __iter__(self) -> Iterator[str]:
        return iter(self._configured)

    def __len__(self) -> int:
        return len(self._configured)


def _requests_per_second(name: str, settings: ConnectionSettings) -> float:
    """Returns the rate with which workers call the platform. Wrong settings are refused by workers only."""
    from export_worker.platforms.registry import complete_settings  # noqa: PLC0415 - see above

    try:
        return complete_settings(name, settings).requests_per_second
    except ConfigError:
        return settings.requests_per_second


def _calls_platforms() -> bool:
    """Returns whether the extra `worker` is installed: drivers need its packages, but the gateway does not."""
    return find_spec("zstandard") is not None  # no other extra has it, so the other packages are installed, too


def catalog_call(config: Config, redactor: Redactor) -> CatalogCall | None:
    """Returns the function that lists resources of platforms.

    Returns:
        None if the extra `worker` is not installed.
    """
    return partial(_list_resource, config, redactor) if _calls_platforms() else None


async def _list_resource(
    config: Config, redactor: Redactor, connection: str, resource: str, project: str | None
) -> list[dict[str, Any]]:
    from export_worker.wiring.catalog import list_resource  # noqa: PLC0415 - see above

    return await list_resource(config, redactor, connection, resource, project)


def _shown_settings(config: Config, redactor: Redactor) -> dict[str, Any]:
    from export_worker.wiring.shown_settings import shown_settings  # noqa: PLC0415 - see above

    return shown_settings(config, redactor)
