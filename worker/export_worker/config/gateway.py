"""The section `gateway`."""

from typing import Annotated

from pydantic import Field, SecretStr

from export_worker.config.section import Section


class GatewaySettings(Section):
    """The HTTP API."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    api_keys: tuple[SecretStr, ...] = ()
