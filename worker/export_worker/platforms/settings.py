"""The settings of a connection: what is common to all platforms. Drivers add their own in a subclass."""

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from export_worker.egress.address_policy import AddressPolicy, is_fixed_host
from export_worker.errors import ConfigError
from export_worker.s3.settings import BUCKET_DEFAULTS, StorageSettings


class PollSettings(BaseModel):
    """How patiently an export of this connection is looked at.

    Args:
        first_s: Ceiling of the first wait; each further ceiling is twice the one before.
        max_s: No wait is longer.
        deadline_s: Seconds from acceptance to the end of patience; a request may say its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    first_s: Annotated[float, Field(gt=0)] = 2.0
    max_s: Annotated[float, Field(gt=0)] = 60.0
    deadline_s: Annotated[float, Field(gt=0, le=30 * 86_400)] = 86_400.0


class ConnectionSettings(BaseModel):
    """A platform with its address, credential and limits.

    Fields that are not named here belong to the platform's driver, which checks them when it is built: a producer
    reads the same file without having any driver installed.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    platform: Annotated[str, StringConstraints(min_length=1)]
    base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]
    token: SecretStr | None = None
    client_secret: SecretStr | None = None
    api_key: SecretStr | None = None
    poll: PollSettings = PollSettings()
    max_in_flight: Annotated[int, Field(ge=1)] = 8
    requests_per_second: Annotated[float, Field(gt=0)] = 5.0
    """What the platform is asked at most, over all workers, with one second's worth (and one more) at once. Counted is
    every request to the origin of `base_url`: submits, polls, pages of a result, downloads, tokens. Files that come
    from elsewhere (object stores, CDNs) are not the platform's API, and not counted; neither is what `call`, `catalog`
    and `doctor` ask."""
    mib_per_second: Annotated[float, Field(gt=0)] | None = None
    """What the transfers of one worker may read from it; with several workers it is several times as much."""
    allow_hosts: tuple[str, ...] = ()
    allow_networks: tuple[IPvAnyNetwork, ...] = ()
    """Private networks that a download may come from, such as 10.1.0.0/16; `base_url` may be private anyway."""
    s3: StorageSettings = BUCKET_DEFAULTS
    """How the files of this connection are stored, where that differs from the section `s3`."""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Only fields known here: a secret under a misspelt name is none to pydantic."""
        return ((name, value) for name, value in super().__repr_args__() if name in type(self).model_fields)

    def reach(self) -> AddressPolicy:
        """Where requests of this connection may go: the own host wherever it is, others only to public addresses."""
        named = [urlsplit(f"//{host}").hostname or "" for host in self.allow_hosts]
        own = urlsplit(self.base_url).hostname or ""
        return AddressPolicy({own, *filter(is_fixed_host, named)}, self.allow_networks)


S = TypeVar("S", bound=ConnectionSettings)


def platform_settings(name: str, settings: ConnectionSettings, model: type[S]) -> S:
    """The settings as the platform's own model has them.

    Args:
        name: Of the connection.
        settings: As they stand in the configuration.
        model: Forbids what it does not know.

    Raises:
        ConfigError: An option is unknown, missing or wrong. Names `connections.<name>.<option>`, never a value: it
            may be a secret under a misspelt name.
    """
    try:
        return model.model_validate(settings.model_dump())
    except ValidationError as error:
        problems = (_problem(name, model, detail) for detail in error.errors(include_input=False))
        raise ConfigError("; ".join(problems)) from None


def _problem(name: str, model: type[ConnectionSettings], detail: ErrorDetails) -> str:
    setting = ".".join(["connections", name, *map(str, detail["loc"])])
    match detail["type"]:
        case "extra_forbidden":
            return f"{setting}: unknown option; known are {', '.join(sorted(model.model_fields))}"
        case "literal_error":
            return f"{setting}: must be {detail['ctx']['expected']}"
        case "value_error":
            return f"{setting}: {detail['ctx']['error']}"
        case _:
            return f"{setting}: {detail['msg'].replace('Input should', 'must')}"
