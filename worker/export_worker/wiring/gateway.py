"""Builds what the gateway needs from the configuration."""

from functools import partial
from importlib.util import find_spec

from export_producers.gateway.callers.principals import Role
from export_producers.gateway.callers.proxy import ProxyOptions
from export_producers.gateway.context import CatalogCall
from export_producers.gateway.installation import ConfiguredConnection, DoctorCall, Installation
from export_producers.gateway.options import GatewayOptions, NamedKey
from export_worker.config import Config
from export_worker.config.gateway import GatewayKey
from export_worker.credentials import Redactor, reveal
from export_worker.errors import ConfigError
from export_worker.platforms.registry import complete_settings
from export_worker.platforms.settings import ConnectionSettings
from export_worker.wiring.catalog import list_resource
from export_worker.wiring.links import link_call
from export_worker.wiring.shown_settings import shown_settings
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
    connections = {
        name: ConfiguredConnection(each.base_url, _requests_per_second(name, each), each.mib_per_second)
        for name, each in config.connections.items()
    }
    settings = partial(shown_settings, config, redactor)
    link = link_call(config, redactor) if config.gateway.allows_links else None
    return Installation(connections, read_triggers, settings, doctor if _calls_platforms() else None, link)


def _requests_per_second(name: str, settings: ConnectionSettings) -> float:
    """Returns the rate with which workers call the platform. Wrong settings are refused by workers only."""
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
    return partial(list_resource, config, redactor) if _calls_platforms() else None
