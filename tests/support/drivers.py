"""Drivers whose connection leads to a scripted server, and a downloader without a driver."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from graphql import FieldNode, OperationDefinitionNode, parse

from export_worker.credentials import Redactor
from export_worker.platforms.base import Driver
from export_worker.platforms.growingio.driver import GrowingioDriver
from export_worker.platforms.growingio_rest.driver import GrowingioRestDriver
from export_worker.platforms.http.auth import StaticAuth, authorization
from export_worker.platforms.http.client import HttpClient
from export_worker.platforms.http.downloads import Downloader
from export_worker.platforms.http.oauth import ClientCredentialsAuth
from export_worker.platforms.http.outgoing import Auth, Credential
from export_worker.platforms.sensorsdata.driver import SensorsdataDriver
from export_worker.platforms.settings import ConnectionSettings
from export_worker.platforms.thinkingdata.driver import ThinkingdataDriver
from support.scripted_server import CANARY, ScriptedServer, Seen

GRAPHQL = "/graphql"

D = TypeVar("D", bound=Driver)


@asynccontextmanager
async def _opened(driver_class: type[D], name: str, settings: dict[str, Any]) -> AsyncIterator[D]:
    driver = driver_class(name, ConnectionSettings.model_validate(settings), Redactor())  # type: ignore[call-arg]
    try:
        yield driver
    finally:
        await driver.close()


@asynccontextmanager
async def growingio_driver(server: ScriptedServer) -> AsyncIterator[GrowingioDriver]:
    """GrowingIO's GraphQL driver with a static token."""
    settings = {"platform": "growingio", "base_url": server.url, "token": CANARY}
    async with _opened(GrowingioDriver, "gio", settings) as driver:
        yield driver


@asynccontextmanager
async def growingio_rest_driver(server: ScriptedServer, **options: Any) -> AsyncIterator[GrowingioRestDriver]:
    """GrowingIO's REST driver."""
    settings = {"platform": "growingio-rest", "base_url": server.url, "token": CANARY, **options}
    async with _opened(GrowingioRestDriver, "rest", settings) as driver:
        yield driver


@asynccontextmanager
async def sensorsdata_driver(server: ScriptedServer, **options: Any) -> AsyncIterator[SensorsdataDriver]:
    """The Sensors Data driver, with a token unless the options contain a secret."""
    secret = {} if {"token", "api_key"} & options.keys() else {"token": CANARY}
    settings = {"platform": "sensorsdata", "base_url": server.url, "requests_per_second": 1000, **secret, **options}
    async with _opened(SensorsdataDriver, "sensors", settings) as driver:
        yield driver


@asynccontextmanager
async def thinkingdata_driver(server: ScriptedServer, **options: Any) -> AsyncIterator[ThinkingdataDriver]:
    """The ThinkingData driver. It retries a page after a very short wait."""
    settings = {"platform": "thinkingdata", "base_url": server.url, "token": CANARY, "page_retry_s": 0.01, **options}
    async with _opened(ThinkingdataDriver, "ta", settings) as driver:
        yield driver


@asynccontextmanager
async def downloader(
    base_url: str,
    *allow_hosts: str,
    oauth: bool = False,
    credential: Credential | None = None,
    stall_s: float = 10,
    file_content_types: Sequence[str] = (),
) -> AsyncIterator[Downloader]:
    """A downloader with a static token, another credential, or tokens from the OAuth grant."""
    redactor = Redactor()
    redactor.add(CANARY)
    settings = ConnectionSettings(platform="growingio", base_url=base_url, allow_hosts=allow_hosts)
    client = HttpClient("gio", base_url, redactor, address_policy=settings.address_policy(), read_timeout_s=stall_s)
    auth: Auth = StaticAuth(credential or authorization("Token", CANARY))
    if oauth:
        auth = ClientCredentialsAuth(client, CANARY, "Token")
    try:
        yield Downloader(client, auth, allow_hosts, file_content_types)
    finally:
        await auth.close()
        await client.close()


def root_field(text: str) -> tuple[str, str]:
    """Returns the type of a GraphQL document's operation, and the one field that it selects at the root."""
    [operation] = parse(text).definitions
    assert isinstance(operation, OperationDefinitionNode)
    [field] = operation.selection_set.selections
    assert isinstance(field, FieldNode)
    return operation.operation.value, field.name.value


def query_of(seen: Seen) -> dict[str, list[str]]:
    """Returns the parameters of a request's query string."""
    return parse_qs(urlsplit(seen.target).query, keep_blank_values=True)
