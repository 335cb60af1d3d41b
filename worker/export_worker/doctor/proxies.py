"""Warns about proxies that the environment names and requests do not use."""

from collections.abc import Iterator, Mapping

from export_worker.config import Config
from export_worker.config.sinks import WebhookSink
from export_worker.credentials import reveal
from export_worker.doctor.finding import Finding, warning
from export_worker.egress.network_settings import NetworkSettings
from export_worker.egress.proxies import proxy_variable
from export_worker.errors import ConfigError


def unused_proxies(config: Config, environment: Mapping[str, str]) -> list[Finding]:
    """Returns a warning for each variable whose proxy is not used, with the sections that it would apply to.

    A section that has `proxy` or `trust_env` has decided, and gets no warning.

    Args:
        environment: The variables of the process.
    """
    unused: dict[str, list[str]] = {}
    for section, settings, url in _requests(config):
        variable = None if {"proxy", "trust_env"} & settings.model_fields_set else _variable(url, environment)
        if variable is not None:
            unused.setdefault(variable, []).append(section)
    return [_unused(variable, sections) for variable, sections in unused.items()]


def _requests(config: Config) -> Iterator[tuple[str, NetworkSettings, str]]:
    """Yields each section that sends requests, with the address to which it sends them."""
    for name, connection in config.connections.items():
        yield f"connections.{name}", connection, connection.base_url
    for name, sink in config.sinks.items():
        if isinstance(sink, WebhookSink):
            section = f"sinks.{name}"
            try:
                yield section, sink, reveal(sink.url, f"{section}.url")
            except ConfigError:
                continue  # reported by the check of secrets


def _variable(url: str, environment: Mapping[str, str]) -> str | None:
    try:
        return proxy_variable(url, environment)
    except ValueError:
        return None


def _unused(variable: str, sections: list[str]) -> Finding:
    says = f"{variable} is set, but {', '.join(sections)} {'does' if len(sections) == 1 else 'do'} not use it"
    fix = "set proxy or trust_env = true there to use it, or trust_env = false to confirm that no proxy is needed"
    return warning("configuration", says, fix)
