"""The whole configuration, and how it is loaded."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from export_worker.config.gateway import GatewaySettings
from export_worker.config.problems import not_json, setting_problem, variable_names
from export_worker.config.queues import Namespace, RedisUrl
from export_worker.config.recipes import in_folder, make_kinds_known, platform_of_connection, with_recipes
from export_worker.config.s3 import S3Settings
from export_worker.config.schedules import SCHEDULES_MAX, ScheduleSettings, check_schedules
from export_worker.config.sinks import AnySink, RedisStreamSink
from export_worker.config.sources import ENV_DELIMITER, ENV_PREFIX, Sources
from export_worker.config.transfer import TransferSettings
from export_worker.config.triggers import AnyTrigger
from export_worker.config.worker import RetrySettings, WorkerSettings
from export_worker.contract.documented import Documented
from export_worker.contract.names import similar_name, unknown_name
from export_worker.contract.settings_file import FILE_VARIABLE, settings_path, settings_text
from export_worker.contract.wording import Pattern
from export_worker.errors import ConfigError
from export_worker.platforms.settings import ConnectionSettings
from export_worker.s3.object_keys import validate_key_template
from export_worker.texts.toml_files import toml_problem

_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)$")
"""The ends of the variables that Kubernetes sets in every pod for each Service, e.g. one named `export-gateway`."""

SectionName = Annotated[
    str, Pattern(r"^[A-Za-z0-9_-]{1,64}$", "the name must have 1 to 64 characters: letters, digits, _ and -")
]
_OF_OTHER_SINKS = {name for model in get_args(get_args(AnySink)[0]) for name in model.model_fields}.difference(
    RedisStreamSink.model_fields
)
"""The settings that a Redis stream does not have. A sink that has one of them must say its type."""


def _typed_sink(sink: Any) -> Any:
    """Adds the type `redis-stream` to a sink without a type: the first version of export-worker had no other sinks."""
    may_be_stream = isinstance(sink, dict) and not _OF_OTHER_SINKS.intersection(sink)
    return {"type": "redis-stream", **sink} if may_be_stream else sink


def _with_room_for_a_part(transfer: TransferSettings, info: ValidationInfo) -> TransferSettings:
    s3: S3Settings | None = info.data.get("s3")
    if s3 is not None and (s3.part_size_mib or 0) > transfer.memory_mib:
        raise ValueError(f"memory_mib must be at least s3.part_size_mib ({s3.part_size_mib})")
    return transfer


class Config(Documented, BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
        extra="forbid",
        frozen=True,
    )

    redis_url: RedisUrl = "redis://127.0.0.1:6379/0"
    """The address of Redis: redis://, rediss://, unix:// or sentinel://. It may contain a password, which is masked.

    Default `redis://127.0.0.1:6379/0`: this machine."""
    namespace: Namespace = "exports"
    """The first part of every Redis key. Default `exports`, 1 to 64 characters: letters, digits, `_`, `.` and `-`.

    For a Redis cluster, a part of it must be in braces, for example `{exports}`: then all keys are in one slot."""
    s3: S3Settings = S3Settings()
    """`[s3]`: the bucket, and how objects are stored in it."""
    connections: Annotated[dict[SectionName, ConnectionSettings], BeforeValidator(with_recipes)] = {}
    """`[connections.NAME]`: the platforms, each with its address, credential and limits. Default: none."""
    sinks: dict[SectionName, Annotated[AnySink, BeforeValidator(_typed_sink)]] = {"stream": RedisStreamSink()}
    """`[sinks.NAME]`: the destinations of completion events. Default: one Redis stream, named `stream`."""
    triggers: dict[SectionName, AnyTrigger] = {}
    """`[triggers.NAME]`: the sources of messages that request exports. Default: none."""
    schedules: Annotated[dict[SectionName, ScheduleSettings], Field(max_length=SCHEDULES_MAX)] = {}
    """`[schedules.NAME]`: exports that workers request at fixed times. Default: none, at most 10,000.

    All workers of a namespace must have the same schedules."""
    gateway: GatewaySettings = GatewaySettings()
    """`[gateway]`: the HTTP API."""
    retry: RetrySettings = RetrySettings()
    """`[retry]`: the attempts of a step."""
    transfer: Annotated[TransferSettings, AfterValidator(_with_room_for_a_part), Field(validate_default=True)] = (
        TransferSettings()
    )
    """`[transfer]`: the limits of transfers."""
    worker: WorkerSettings = WorkerSettings()
    """`[worker]`: the worker process."""

    @model_validator(mode="after")
    def _keys_of_connections_fit(self) -> Self:
        for name, connection in self.connections.items():
            try:
                validate_key_template(self.s3.key_template, connection.s3.prefix or "")
            except ValueError as error:
                # The template itself is valid, or the section `s3` would have been refused.
                raise ValueError(f"connections.{name}.s3.prefix {error}") from None
        return self

    @model_validator(mode="after")
    def _keys_of_the_gateway_name_connections(self) -> Self:
        # A gateway may have no connections: it then accepts those that workers have announced.
        for name, key in self.gateway.keys.items():
            for connection in key.connections or ():
                if self.connections and connection not in self.connections:
                    unknown = unknown_name("connection", connection, sorted(self.connections))
                    raise ValueError(f"gateway.keys.{name}.connections: {unknown}")
        return self

    @model_validator(mode="after")
    def _queues_name_connections(self) -> Self:
        for name, queue in self.gateway.queues.items():
            for connection in queue.connections:
                if self.connections and connection not in self.connections:
                    unknown = unknown_name("connection", connection, sorted(self.connections))
                    raise ValueError(f"gateway.queues.{name}.connections: {unknown}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns the sources: the environment, which overrides the file. The file arrives as arguments."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    def platforms(self) -> dict[str, str]:
        """Returns the platform of each connection, by the connection's name: `recipe:NAME` for one with a recipe."""
        return {name: platform_of_connection(settings) for name, settings in self.connections.items()}

    def secrets(self) -> list[tuple[str, SecretStr]]:
        """Returns every secret with the name of its setting, e.g. `connections.gio.token`."""
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
        found += [
            (f"connections.{name}.column_policy.key", settings.column_policy.key)
            for name, settings in self.connections.items()
            if settings.column_policy is not None and settings.column_policy.key is not None
        ]
        found += [(f"gateway.api_keys.{index}", key) for index, key in enumerate(self.gateway.api_keys)]
        return found + [(f"gateway.keys.{name}.key", each.key) for name, each in self.gateway.keys.items()]


def load_config(path: str | None = None) -> Config:
    """Loads the configuration from the file and the environment. The kinds of its recipe files are known from then on.

    Args:
        path: The file. By default the file that `EXPORT_CONFIG` names, else `export-worker.toml` if it exists.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or a setting is wrong. Every wrong setting is named.
    """
    file = Path(path) if path else settings_file()
    text = _text(file) if file else ""
    settings = _parsed(file, text) if file else {}
    try:
        with _located(Sources(str(file), text, os.environ)), in_folder(file.parent if file else Path()):
            config = _checked(settings)
            make_kinds_known(config.connections)
            check_schedules(config.schedules, config.platforms(), config.sinks)
    except SettingsError:
        raise ConfigError(*not_json(_variables_that_are_not_json())) from None
    return config


def _checked(settings: dict[str, Any]) -> Config:
    try:
        return Config(**settings)
    except ValidationError as error:
        schema = Config.model_json_schema()
        raise ConfigError(*(setting_problem(detail, schema) for detail in error.errors())) from None


def _variables_that_are_not_json() -> list[str]:
    source, found = EnvSettingsSource(Config), []
    for name, value in os.environ.items():
        source.env_vars = {name.lower(): value}
        try:
            source()
        except SettingsError:
            found.append(name)
    return found


@contextmanager
def _located(sources: Sources) -> Iterator[None]:
    """Adds to every problem the line or the variable that causes it."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(*map(sources.located, error.problems)) from None


@contextmanager
def located_errors() -> Iterator[None]:
    """Adds the line or the variable to the problems of the block, which checks settings that have been loaded.

    Settings of a platform are checked when its driver is built, because producers need no drivers.
    """
    file = settings_file()
    try:
        text = _text(file) if file else ""
    except ConfigError:  # it was readable when it was loaded
        text = ""
    with _located(Sources(str(file), text, os.environ)):
        yield


def settings_file() -> Path | None:
    """Returns the file that `EXPORT_CONFIG` names, else `export-worker.toml` if it exists."""
    return settings_path(os.environ)


def ignored_variables(environment: Mapping[str, str]) -> list[str]:
    """Returns the `EXPORT_` variables whose first part is neither a setting nor a section.

    Such variables are ignored, because Kubernetes sets EXPORT_WORKER_SERVICE_HOST and the like in every pod. Variables
    with such a Kubernetes name are not returned. An unknown setting within a section is a `ConfigError`.
    """
    known = {FILE_VARIABLE, *(f"EXPORT_{name.upper()}" for name in Config.model_fields)}
    return sorted(
        name
        for name in environment
        if name.startswith("EXPORT_") and name.partition("__")[0] not in known and not _SERVICE_LINK.search(name)
    )


def similar_variable(name: str) -> str:
    """Returns `did you mean EXPORT_S3__BUCKET?` for an ignored variable, or nothing if no name is similar."""
    # Without the prefix, which would make every two names similar.
    meant = similar_name(name.removeprefix(ENV_PREFIX), variable_names(Config.model_json_schema()))
    return f"did you mean {ENV_PREFIX}{meant}?" if meant else ""


def _text(file: Path) -> str:
    try:
        return settings_text(file)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {file} ({error.strerror}); check EXPORT_CONFIG") from None
    except ValueError as error:
        raise ConfigError(f"{file} is not valid TOML: it {error}") from None


def _parsed(file: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(f"{file} is not valid TOML: {toml_problem(text, error)}") from None
    except RecursionError:
        raise ConfigError(f"{file} is not valid TOML: its brackets are nested too deeply") from None
