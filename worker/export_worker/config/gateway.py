"""The section `gateway`: the HTTP API."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, IPvAnyNetwork, SecretStr

from export_worker.config.queues import GatewayQueues
from export_worker.config.section import Section
from export_worker.contract.wording import Pattern

RoleName = Literal["viewer", "service", "operator", "admin"]
KeyName = Annotated[
    str, Pattern(r"^[A-Za-z0-9_-]{1,64}$", "the name must have 1 to 64 characters: letters, digits, _ and -")
]
MetadataName = Annotated[str, Pattern(r"^[^=]{1,100}$", "must have 1 to 100 characters without =")]
HeaderName = Annotated[str, Pattern(r"^[A-Za-z0-9-]{1,64}$", "must be the name of a header")]


def _not_numbered(keys: dict[str, "GatewayKey"]) -> dict[str, "GatewayKey"]:
    for name in keys:
        if re.fullmatch(r"key-[0-9]+", name):
            raise ValueError(f"{name} is the name of a key of api_keys; choose another name")
    return keys


def _not_everyone(networks: tuple[IPvAnyNetwork, ...]) -> tuple[IPvAnyNetwork, ...]:
    if any(network.prefixlen == 0 for network in networks):
        raise ValueError("must not contain all addresses: everyone could name any user")
    return networks


class GatewayKey(Section):
    """`[gateway.keys.NAME]`: a key with a name, which the activity shows."""

    key: SecretStr
    """The key, or a reference to it: `env:NAME`, `file:/path` or `aws-sm:NAME`. Required."""
    role: RoleName
    """What the key may do. Each role may also do what the roles before it may do.

    `viewer` looks. `service` requests, cancels and retries exports, through `/v1` only. `operator` also pauses
    connections, delivers events and acts on many exports. `admin` also sees the configuration. Required."""
    connections: Annotated[tuple[str, ...] | None, Field(min_length=1)] = None
    """The connections that the key may see and use. Default: all."""


class GatewayProxy(Section):
    """`[gateway.proxy]`: people who log in at an authenticating proxy in front of the gateway."""

    user_header: HeaderName = "X-Forwarded-User"
    """The header with the name of the user. The proxy must replace this header if a client sends it.

    Default `X-Forwarded-User`."""
    groups_header: HeaderName = "X-Forwarded-Groups"
    """The header with the groups of the user, separated by commas. Default `X-Forwarded-Groups`."""
    trusted: Annotated[tuple[IPvAnyNetwork, ...], Field(min_length=1), AfterValidator(_not_everyone)]
    """The addresses of the proxy, such as `10.2.0.0/16`. The headers of other addresses are ignored.

    Required."""
    roles: dict[str, RoleName]
    """The role of each group. `*` is the group of all users. A user may do what the roles of all groups may do: one
    who is `viewer` and `service` requests exports, and has the console.

    A user without a role has no access. Required."""


class GatewayConsole(Section):
    """`[gateway.console]`: the web console. `console = true` and `console = false` are short for `enabled`."""

    enabled: bool = True
    """Whether the gateway serves the web console under `/console/`. Default: true."""
    presign: bool = False
    """Whether operators may make links that download a file of an export. Default: false.

    Everyone who has such a link can begin the download for 60 seconds, without a key. The activity has a line for each
    link. The gateway needs the extra `worker`, and credentials of S3 with `s3:GetObject`."""


def _as_table(console: Any) -> Any:
    return console if console is None or isinstance(console, GatewayConsole | Mapping) else {"enabled": console}


Console = Annotated[
    GatewayConsole | None, BeforeValidator(_as_table, json_schema_input_type=bool | GatewayConsole | None)
]


class GatewaySettings(Section):
    """The settings of `export-worker gateway`."""

    host: str = "127.0.0.1"
    """The address to listen on. Default `127.0.0.1`: this machine only."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """The TCP port. 0 picks a free port. Default 8080, at most 65535."""
    api_keys: tuple[SecretStr, ...] = ()
    """Bearer keys that clients send, with the role `service`. Default: none.

    Without any key and without a proxy, only a loopback address is allowed as `host`."""
    keys: Annotated[dict[KeyName, GatewayKey], AfterValidator(_not_numbered)] = {}
    """`[gateway.keys.NAME]`: bearer keys with a name, a role and connections. Default: none."""
    proxy: GatewayProxy | None = None
    """`[gateway.proxy]`: an authenticating proxy that names the users. Default: none."""
    console: Console = None
    """Whether the gateway serves the web console under `/console/`: `true`, `false` or `[gateway.console]`.

    Default: only with a key in `keys`, with a `proxy`, or without any key."""
    search_metadata: Annotated[tuple[MetadataName, ...], Field(max_length=20)] = ()
    """The names of metadata by which many exports can be searched at once, such as `order`. Default: none, at most 20.

    Producers index the exports that they accept after the start of a gateway. All gateways must have the same names."""
    queues: GatewayQueues = {}
    """`[gateway.queues.NAME]`: several namespaces, on one Redis or on several, behind this gateway. Default: none.

    Without them, the gateway has one queue: `redis_url` and `namespace` of this file. With them, it has only these, at
    most 16."""
    requests_per_second: Annotated[float, Field(gt=0)] = 100.0
    """Requests per second that one key may send for long, to each gateway process. Default 100, above 0."""
    burst: Annotated[int, Field(ge=1)] = 200
    """The number of requests that one key may send at once. Default 200, at least 1."""
    max_streams: Annotated[int, Field(ge=0)] = 1000
    """The number of open event streams of one process. Default 1000, at least 0."""
    keep_alive_s: Annotated[float, Field(gt=0, le=3600)] = 15.0
    """Seconds between comments on an event stream without events, so that proxies keep it open.

    Default 15, above 0, at most 3600."""
    stop_s: Annotated[float, Field(ge=0, le=3600)] = 10.0
    """Seconds for which a stopping gateway waits for running requests. Default 10, at least 0, at most 3600."""

    @property
    def allows_links(self) -> bool:
        """Whether operators may make links to objects."""
        return self.console is not None and self.console.presign
