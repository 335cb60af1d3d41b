"""The whole configuration, and how it is read."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from export_worker.config.gateway import GatewaySettings
from export_worker.config.s3 import S3Settings
from export_worker.config.sinks import AnySink, RedisStreamSink
from export_worker.config.transfer import TransferSettings
from export_worker.config.triggers import AnyTrigger
from export_worker.config.worker import RetrySettings, WorkerSettings
from export_worker.errors import ConfigError
from export_worker.platforms.settings import ConnectionSettings
from export_worker.redis.sentinel import is_sentinel_url

DEFAULT_FILE = "export-worker.toml"
FILE_VARIABLE = "EXPORT_CONFIG"
_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$")
"""What Kubernetes sets in every pod for a Service, such as one of the name `export-gateway`."""

ConnectionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


def _checked_url(url: str) -> str:
    """Refuse what is no Redis URL; the refusal must not show it, for there may be a password in it."""
    try:
        parts = urlsplit(url)
        known = is_sentinel_url(url) or (parts.scheme in {"redis", "rediss", "unix"} and parts.port != 0)
    except ValueError:
        known = False
    if not known:
        advice = (
            "must be redis://, rediss://, unix:// or sentinel://, with what is special in its password percent-encoded"
        )
        raise PydanticCustomError("redis_url", advice)
    return url


def _typed_sink(sink: Any) -> Any:
    """A sink that says no type is a Redis stream, as it was when there was no other."""
    return {"type": "redis-stream", **sink} if isinstance(sink, dict) else sink


class Config(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="EXPORT_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    redis_url: Annotated[str, AfterValidator(_checked_url), Field(repr=False)] = "redis://127.0.0.1:6379/0"
    """May hold a password, so it is not shown."""
    namespace: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "exports"
    s3: S3Settings = S3Settings()
    connections: dict[ConnectionName, ConnectionSettings] = {}
    sinks: dict[ConnectionName, Annotated[AnySink, BeforeValidator(_typed_sink)]] = {"stream": RedisStreamSink()}
    triggers: dict[ConnectionName, AnyTrigger] = {}
    gateway: GatewaySettings = GatewaySettings()
    retry: RetrySettings = RetrySettings()
    transfer: TransferSettings = TransferSettings()
    worker: WorkerSettings = WorkerSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, which arrives as arguments; there is nothing else."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    def platforms(self) -> dict[str, str]:
        """Connection → platform."""
        return {name: settings.platform for name, settings in self.connections.items()}

    def secrets(self) -> list[tuple[str, SecretStr]]:
        """Every secret with the setting in which it stands."""
        sections: dict[str, Mapping[str, BaseModel]] = {
            "connections": self.connections,
            "sinks": self.sinks,
            "triggers": self.triggers,
        }
        found = [
            (f"{section}.{name}.{field}", value)
            for section, members in sections.items()
            for name, settings in members.items()
            for field, value in settings
            if isinstance(value, SecretStr)
        ]
        return found + [(f"gateway.api_keys.{index}", key) for index, key in enumerate(self.gateway.api_keys)]


def load_config(path: str | None = None) -> Config:
    """Read the file and the environment.

    Args:
        path: The file; by default `EXPORT_CONFIG`, then `export-worker.toml` if it is there.

    Raises:
        ConfigError: The file is missing or no TOML, or a setting is wrong; each is named.
    """
    file = Path(path) if path else settings_file()
    settings = _read(file) if file else {}
    try:
        return Config(**settings)
    except ValidationError as error:
        told = error.errors(include_input=False)
        raise ConfigError(*(_problem(file or Path(DEFAULT_FILE), detail) for detail in told)) from None
    except ValueError as error:
        # pydantic-settings: a variable that should hold JSON does not.
        raise ConfigError(f"environment: {error}") from None


def settings_file() -> Path | None:
    """The one that `EXPORT_CONFIG` names, else `export-worker.toml` if it is there."""
    named = os.environ.get(FILE_VARIABLE)
    file = Path(named or DEFAULT_FILE)
    return file if named or file.exists() else None


def ignored_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that begin as ours do and name no setting; within a section, such a one is an error anyway."""
    known = {FILE_VARIABLE, *(f"EXPORT_{name.upper()}" for name in Config.model_fields)}
    return sorted(
        name
        for name in environment
        if name.startswith("EXPORT_") and name.partition("__")[0] not in known and not _SERVICE_LINK.search(name)
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {file} ({error.strerror}); is EXPORT_CONFIG right?") from None
    except ValueError as error:
        raise ConfigError(f"{file} is no valid TOML: {error}") from None


def _problem(file: Path, detail: Any) -> str:
    place = list(detail["loc"])
    if detail["type"].startswith("union_tag"):
        return f"{'.'.join(map(str, place))}.type: {detail['msg']}"
    if place[0] in {"sinks", "triggers"}:
        # Which of the types it is stands in the path as well, where the file has no such level.
        del place[2:3]
    setting = ".".join(map(str, place))
    if detail["type"] == "extra_forbidden":
        return f"{setting}: unknown setting (in {_written_in(file, place)})"
    if detail["type"] == "value_error":
        return f"{setting}.{detail['ctx']['error']}"
    if detail["type"] == "string_pattern_mismatch" and detail["ctx"]["pattern"].startswith("^https?://"):
        return f"{setting}: must be http://HOST or https://HOST, with port and path if need be, and nothing else"
    return f"{setting}: {detail['msg']}"


def _written_in(file: Path, place: list[Any]) -> str:
    """The variable that says a setting, else the file."""
    variable = "EXPORT_" + "__".join(map(str, place)).upper()
    return variable if variable in map(str.upper, os.environ) else str(file)
