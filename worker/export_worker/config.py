"""The configuration: one TOML file, every value of which the environment can override (DESIGN 1.2).

Lower floors never see it; they take values in their constructors.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from export_worker.errors import ConfigError
from export_worker.platforms.connection import ConnectionSettings
from export_worker.transfer.names import validate_key_template

DEFAULT_FILE = "export-worker.toml"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class S3Settings(_Section):
    """Where files land. Credentials come from boto3's own chain and nowhere else.

    Args:
        endpoint_url: Left out for AWS.
        key_template: Fields: kind, connection, date (of acceptance, UTC), export_id, file_name.
    """

    bucket: Annotated[str, StringConstraints(min_length=3, max_length=255)] = "exports"
    prefix: str = ""
    region: str = "us-east-1"
    endpoint_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")] | None = None
    key_template: str = "{kind}/dt={date}/{export_id}/{file_name}"

    @model_validator(mode="after")
    def _template_works(self) -> Self:
        try:
            validate_key_template(self.key_template, self.prefix)
        except ValueError as error:
            raise ValueError(f"key_template {error}") from None
        return self


class RetrySettings(_Section):
    """How often a step may fail in a row, and the waits between (seconds).

    The defaults ride out some ten minutes; a platform that is down for longer is waited for by the breaker.
    """

    max_attempts: Annotated[int, Field(ge=1)] = 12
    first_s: Annotated[float, Field(gt=0)] = 1.0
    max_s: Annotated[float, Field(gt=0)] = 300.0


class TransferSettings(_Section):
    """How bytes are moved.

    Args:
        memory_mib: Buffers of all transfers of one process together.
        parts_in_flight: Parts of one file that upload at once.
    """

    memory_mib: Annotated[int, Field(ge=16)] = 128
    parts_in_flight: Annotated[int, Field(ge=1, le=32)] = 4


class WorkerSettings(_Section):
    """How much one worker takes on, and how soon a dead one is noticed.

    Args:
        control_steps: Submits and polls at once.
        transfers: Exports that move bytes at once.
        lease_s: A worker that says nothing for so long has lost its step.
        sweep_s: Seconds between looks for overdue exports.
        drain_s: Seconds that running steps get when the worker is told to stop.
        retention_s: How long an ended export can be looked at.
        breaker_first_s: How long a platform that does not answer is left alone at first; doubles with each look.
        breaker_max_s: It is left alone no longer than this.
    """

    control_steps: Annotated[int, Field(ge=1)] = 50
    transfers: Annotated[int, Field(ge=1)] = 4
    lease_s: Annotated[float, Field(ge=1)] = 15.0
    sweep_s: Annotated[float, Field(gt=0)] = 5.0
    drain_s: Annotated[float, Field(ge=0)] = 10.0
    retention_s: Annotated[float, Field(ge=60)] = 7 * 86_400.0
    breaker_first_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    breaker_max_s: Annotated[float, Field(gt=0, le=3600)] = 300.0


class RedisStreamSink(_Section):
    """Completion events on a Redis stream, in the field `event`; the stream keeps about `max_length` of them."""

    type: Literal["redis-stream"] = "redis-stream"
    stream: Annotated[str, StringConstraints(min_length=1)] = "exports:events"
    max_length: Annotated[int, Field(ge=1)] = 100_000


class GatewaySettings(_Section):
    """The HTTP API."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    api_keys: tuple[SecretStr, ...] = ()


ConnectionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


def _checked_url(url: str) -> str:
    """Refuse what is no Redis URL; the refusal must not show it, for there may be a password in it."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in {"redis", "rediss", "unix"} and parts.port != 0
    except ValueError:
        known = False
    if not known:
        advice = "must be redis://, rediss:// or unix://, with what is special in its password percent-encoded"
        raise PydanticCustomError("redis_url", advice)
    return url


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
    sinks: dict[ConnectionName, RedisStreamSink] = {"stream": RedisStreamSink()}
    triggers: dict[str, dict[str, Any]] = {}
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
        found = [
            (f"connections.{name}.{field}", value)
            for name, settings in self.connections.items()
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
    named = path or os.environ.get("EXPORT_CONFIG")
    file = Path(named or DEFAULT_FILE)
    settings = _read(file) if named or file.exists() else {}
    try:
        return Config(**settings)
    except ValidationError as error:
        raise ConfigError("; ".join(_problem(file, detail) for detail in error.errors(include_input=False))) from None
    except ValueError as error:
        # pydantic-settings: a variable that should hold JSON does not.
        raise ConfigError(f"environment: {error}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {file} ({error.strerror}); is EXPORT_CONFIG right?") from None
    except ValueError as error:
        raise ConfigError(f"{file} is no valid TOML: {error}") from None


def _problem(file: Path, detail: Any) -> str:
    setting = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{setting}: unknown setting (in {file})"
    if detail["type"] == "value_error":
        return f"{setting}.{detail['ctx']['error']}"
    return f"{setting}: {detail['msg']}"
