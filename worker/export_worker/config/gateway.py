"""The section `gateway`."""

from typing import Annotated

from pydantic import Field, SecretStr

from export_worker.config.section import Section


class GatewaySettings(Section):
    """The HTTP API.

    Args:
        api_keys: Bearer keys; without any, only a loopback address is bound.
        requests_per_second: Of each key and each gateway process, for long.
        burst: Of each key, at once.
        max_streams: Event streams at once.
        keep_alive_s: Between comments on an event stream on which nothing happens.
        stop_s: What requests get to end when the gateway is told to stop.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    api_keys: tuple[SecretStr, ...] = ()
    requests_per_second: Annotated[float, Field(gt=0)] = 100.0
    burst: Annotated[int, Field(ge=1)] = 200
    max_streams: Annotated[int, Field(ge=0)] = 1000
    keep_alive_s: Annotated[float, Field(gt=0, le=3600)] = 15.0
    stop_s: Annotated[float, Field(ge=0, le=3600)] = 10.0
