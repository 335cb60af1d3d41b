"""The section `gateway`: the HTTP API."""

from typing import Annotated

from pydantic import Field, SecretStr

from export_worker.config.section import Section


class GatewaySettings(Section):
    """The settings of `export-worker gateway`."""

    host: str = "127.0.0.1"
    """The address to listen on. Default `127.0.0.1`: this machine only."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """The TCP port. 0 picks a free port. Default 8080, at most 65535."""
    api_keys: tuple[SecretStr, ...] = ()
    """Bearer keys that clients send. Without a key, only a loopback address is allowed as `host`. Default: none."""
    console: bool | None = None
    """Whether the gateway serves the web console under `/console/`.

    Default: only if there are no keys, so that the gateway is bound to a loopback address."""
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
