"""The settings that connections of all platforms have. Each driver adds its own in a subclass."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Protocol, Self, TypeVar, runtime_checkable
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from export_worker.contract.columns import COLUMN_RULES_MAX, ColumnAction, ColumnName
from export_worker.contract.documented import Documented
from export_worker.contract.kind_names import PLATFORM_OF_KIND
from export_worker.contract.names import did_you_mean
from export_worker.contract.order import check_order
from export_worker.contract.wording import WEB_ADDRESS, Pattern, plain_message
from export_worker.egress.address_policy import AddressPolicy, is_fixed_host
from export_worker.egress.hosts import split_host_and_port
from export_worker.egress.network_settings import NetworkSettings
from export_worker.errors import ConfigError
from export_worker.lifecycle.resubmit import Resubmit
from export_worker.lifecycle.submit_settings import OperationRetrySettings, SubmitWindows
from export_worker.s3.settings import LIKE_ALL, ConnectionStorage


class PollSettings(Documented):
    """How often exports of this connection are polled, and for how long."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    first_s: Annotated[float, Field(gt=0)] = 2.0
    """The longest first wait between polls (seconds). The limit doubles with each further wait.

    Default 2, above 0, not above `max_s` and `deadline_s`."""
    max_s: Annotated[float, Field(gt=0)] = 60.0
    """The longest wait between polls (seconds). Default 60, above 0."""
    deadline_s: Annotated[float, Field(gt=0, le=30 * 86_400)] = 86_400.0
    """Seconds from acceptance until an export fails. A request can set its own deadline.

    Default 86,400 (a day), above 0, at most 2,592,000 (30 days)."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        check_order(self, "first_s", "max_s")
        check_order(self, "first_s", "deadline_s")
        return self


class ColumnSettings(Documented):
    """What is done to the columns of the files of this connection. No request can weaken it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: SecretStr | None = None
    """Key of the hashes: at least 16 bytes, or a reference to it (`env:NAME`). Required for `hash`. Default: none.

    Equal values have equal hashes only under the same key."""
    always: Annotated[dict[ColumnName, ColumnAction], Field(max_length=COLUMN_RULES_MAX)] = {}
    """What is done to columns, by name or pattern such as `*mail*`: `drop`, `hash`, `mask`, `mask:N` or `keep`.

    It holds for all exports of the connection. Where a request has another choice for a column, the stricter one of the
    two applies: drop, hash, mask, keep. At most 1,000 entries, names of at most 200 characters. Default: none."""
    refuse_unknown: bool = False
    """Whether a file fails its export that has a column which neither request nor `always` names. Default: false."""

    @model_validator(mode="after")
    def _hashes_have_a_key(self) -> Self:
        if self.key is None and "hash" in self.always.values():
            raise ValueError("key: is required, because always has a hash")
        return self


def _checked_host(entry: str) -> str:
    split_host_and_port(entry)
    return entry


class ConnectionSettings(NetworkSettings):
    """A platform with its address, credential and limits.

    Fields that are not named here belong to the platform's driver. The driver checks them when it is built, because
    producers read the same configuration file without any driver installed.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    platform: Annotated[str, StringConstraints(min_length=1), Field(examples=sorted({*PLATFORM_OF_KIND.values()}))]
    """`growingio`, `growingio-rest`, `thinkingdata`, `sensorsdata`, `recipe`, or the platform of another package.

    With `recipe`, the setting `recipe` names the description of the platform. Required."""
    base_url: Annotated[str, WEB_ADDRESS]
    """The address of the platform, http:// or https://. Default: that of the recipe. Required without a recipe."""
    token: SecretStr | None = None
    """Credential: a token, or a reference to it (`env:NAME`, `file:/path`, `aws-sm:NAME`). Default: none."""
    client_secret: SecretStr | None = None
    """Credential: a secret for the platform's OAuth grant, or a reference to it. Default: none."""
    api_key: SecretStr | None = None
    """Credential: an API key, or a reference to it. Default: none."""
    poll: PollSettings = PollSettings()
    """`poll`: how often exports of this connection are polled, and for how long."""
    resubmit: Resubmit = "once"
    """How often a submit is repeated that the platform may have received: `never`, `once` or `always`. Default `once`.

    Its operation is unknown because of a timeout, a broken connection, a status 5xx, an unreadable response, or the
    death of a worker. With `never` such an export fails with `submit_unclear`. With `once` it submits once more, and
    the next such submit fails it. With `always` it submits until its attempts are used up, and the platform may run
    its operation many times."""
    retry_operation: OperationRetrySettings = OperationRetrySettings()
    """`retry_operation`: how often an operation that the platform reports as failed is submitted again."""
    submit_windows: SubmitWindows = SubmitWindows()
    """`submit_windows`: the hours in which exports of this connection are submitted, and times of maintenance."""
    max_in_flight: Annotated[int, Field(ge=1)] = 8
    """The number of exports that run on the platform at once, over all workers. Default 8, at least 1."""
    requests_per_second: Annotated[float, Field(gt=0)] = 5.0
    """Requests to the platform per second, over all workers. Default 5, above 0.

    A burst may have one second's requests and one more. Every request to the origin of `base_url` counts: submits,
    polls, pages of a result, downloads, tokens. Files from other hosts (object stores, CDNs) do not count. The calls
    of `call`, `catalog` and `doctor` do not count either."""
    answer_max_kib: Annotated[int, Field(ge=64, le=16 * 1024)] = 1024
    """KiB of the longest answer to a submit or a poll. A longer one is refused as malformed. Default 1,024, 64 to
    16,384.

    10,000 files with names of 100 characters need as much. A listing may have 16 MiB, whatever this setting says."""
    mib_per_second: Annotated[float, Field(gt=0)] | None = None
    """MiB a second that the transfers of one worker may read from this connection. Above 0. Default: no limit.

    Several workers together read several times as much."""
    allow_hosts: tuple[Annotated[str, AfterValidator(_checked_host)], ...] = ()
    """Other hosts and ports that a download may come from, as `host:port`. Default none.

    A redirect to the host of `base_url` must keep its port. An entry without a port allows all ports of its host. Case,
    a dot at the end, the form of an IPv6 address and punycode do not matter: `[::1]:8443`, `bücher.example:8443`."""
    allow_networks: tuple[IPvAnyNetwork, ...] = ()
    """Private networks that a download may come from, such as 10.1.0.0/16. `base_url` is allowed in any case.
    Default: none."""
    file_content_types: tuple[
        Annotated[str, Pattern(r"^[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+$", "must be a media type, such as text/html")], ...
    ] = ()
    """Media types of error pages that this platform also sends with files, such as `text/html` for CSV. Default none.

    Without an entry, a file that is labelled as HTML, XML or JSON is refused unless its name has such an extension. The
    beginning of the file is checked in any case."""
    column_policy: ColumnSettings | None = None
    """`column_policy`: what is done to the columns of the files. Default: what each request asks for."""
    s3: ConnectionStorage = LIKE_ALL
    """Bucket and prefix of this connection, and how its files are stored, where that differs from the section `s3`."""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yields known fields only: pydantic would show a secret whose option is misspelt."""
        return ((name, value) for name, value in super().__repr_args__() if name in type(self).model_fields)

    def address_policy(self) -> AddressPolicy:
        """Returns which addresses requests of this connection may reach.

        The host of `base_url` may have any address. Other hosts must have public addresses or addresses within
        `allow_networks`. An entry of `allow_hosts` that is itself an address, or localhost, is allowed, too.
        """
        named = [split_host_and_port(entry)[0] for entry in self.allow_hosts]
        own = urlsplit(self.base_url).hostname or ""
        return AddressPolicy({own, *filter(is_fixed_host, named)}, self.allow_networks)


@runtime_checkable
class Configured(Protocol):
    """Capability: the driver's class names the model of its settings, for the JSON Schema of the configuration."""

    settings_model: type[ConnectionSettings]
    """The model that the driver passes to `platform_settings`."""


S = TypeVar("S", bound=ConnectionSettings)


def platform_settings(name: str, settings: ConnectionSettings, model: type[S]) -> S:
    """Checks the settings of a connection against the platform's own model.

    Args:
        name: Name of the connection.
        settings: The connection's section of the configuration.
        model: Must forbid unknown fields.

    Raises:
        ConfigError: An option is unknown, missing or wrong. The message names `connections.<name>.<option>` and never
            shows a value, because it may be a secret under a misspelt name.
    """
    try:
        # Without the defaults, which are no decision of the user: `check_order` allows them.
        return model.model_validate(settings.model_dump(exclude_unset=True))
    except ValidationError as error:
        problems = (option_problem(("connections", name), model, detail) for detail in error.errors())
        raise ConfigError(*problems) from None


def option_problem(section: Sequence[str], model: type[BaseModel], detail: ErrorDetails) -> str:
    """Returns what is wrong with a setting, without its value.

    Args:
        section: The path of the section that the model describes.
    """
    setting = ".".join([*section, *map(str, detail["loc"])])
    match detail["type"]:
        case "extra_forbidden":
            known = sorted(model.model_fields)
            meant = did_you_mean(str(detail["loc"][-1]), known)
            return f"{setting}: unknown option{meant}; known are {', '.join(known) or 'none'}"
        case _:
            return f"{setting}: {plain_message(detail, table='a section with settings')}"
