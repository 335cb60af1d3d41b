"""Where requests may go: IP addresses, names of private addresses, redirects, and bodies that expand without end."""

import socket
import zlib
from ipaddress import ip_address, ip_network

import aiohttp
import pytest
from yarl import URL

from export_worker.credentials import Redactor
from export_worker.egress.address_policy import AddressPolicy, is_fixed_host, is_public
from export_worker.egress.connector import AddressRefusedError, PolicyConnector, origin
from export_worker.errors import DownloadForbiddenError, DownloadInvalidError, PlatformMalformedError
from export_worker.platforms.http.auth import StaticAuth, authorization
from export_worker.platforms.http.client import LISTING_MAX_BYTES, Call, HttpClient
from export_worker.platforms.http.download_body import EXPANSION_FREE_BYTES
from export_worker.platforms.http.downloads import Downloader
from export_worker.platforms.settings import ConnectionSettings
from support.scripted_server import CANARY, ScriptedServer, redirected, replied

PUBLIC = [
    "1.1.1.1",
    "93.184.216.34",
    "192.0.1.1",
    "100.128.0.1",
    "2606:4700::1111",
    "64:ff9b::101:101",
    "::ffff:8.8.8.8",
    "2002:808:808::",
    "3fff:1000::1",
    "2620:4f:8001::1",
]
PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "224.0.0.1",
    "239.255.255.250",
    "255.255.255.255",
    "240.0.0.1",
    "::",
    "::1",
    "fe80::1",
    "fd00:ec2::254",
    "ff02::1",
    "ff0e::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "::127.0.0.1",  # IPv4-compatible
    "::ffff:0:127.0.0.1",  # IPv4-translated
    "64:ff9b:1::7f00:1",  # NAT64 within a network
    "fec0::1",  # site-local, the predecessor of unique local addresses
    "2001:0:7f00:1::",  # Teredo
    "5f00::1",
    "192.0.0.192",  # metadata of Oracle Cloud
    "192.0.0.9",  # an address of protocols, which some versions of Python call global
    "192.88.99.1",  # 6to4 relays
    "192.31.196.1",
    "192.52.193.1",
    "192.175.48.1",
    "198.18.0.1",
    "203.0.113.7",
    "::ffff:192.0.0.192",
    "64:ff9b::c000:c0",
    "2002:c058:6301::",  # 6to4 of 192.88.99.1
    "2001:1::1",
    "2001:20::1",
    "2001:db8::1",
    "2620:4f:8000::1",
    "3fff::1",
    "3fff:fff:ffff::1",
    "4000::1",  # not assigned
    "100::1",  # discard-only
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_address_is_allowed(address: str) -> None:
    assert is_public(ip_address(address))
    assert AddressPolicy().allows(ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_private_address_is_refused(address: str) -> None:
    assert not is_public(ip_address(address))
    assert not AddressPolicy().allows(ip_address(address))


def test_allowed_network_allows_only_its_own_addresses() -> None:
    policy = AddressPolicy(networks=[ip_network("10.1.0.0/16"), ip_network("fd00::/8")])
    assert policy.allows(ip_address("10.1.2.3"))
    assert policy.allows(ip_address("::ffff:10.1.2.3"))
    assert policy.allows(ip_address("fd00::7"))
    assert not policy.allows(ip_address("10.2.0.1"))
    assert not policy.allows(ip_address("127.0.0.1"))


def test_fixed_hosts_are_ip_addresses_and_localhost() -> None:
    assert [is_fixed_host(host) for host in ("127.0.0.1", "[::1]", "localhost", "LOCALHOST.", "s3.localhost")] == [
        True,
        False,  # brackets are a part of the URL and not of its host
        True,
        True,
        True,
    ]
    assert not is_fixed_host("storage.example.cn")
    assert not is_fixed_host("localhost.example.cn")


def test_origin_ignores_case_and_the_default_port() -> None:
    assert origin(URL("HTTPS://A.cn")) == origin(URL("https://a.cn:443/x"))
    assert origin(URL("http://a.cn")) != origin(URL("https://a.cn"))


async def ask(policy: AddressPolicy, url: str) -> str:
    async with aiohttp.ClientSession(connector=PolicyConnector(policy)) as session, session.get(url) as response:
        return await response.text()


def other_name(url: str, host: str = "localhost") -> str:
    return str(URL(url).with_host(host))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::ffff:127.0.0.1"])
async def test_request_to_a_private_address_is_refused_before_it_is_sent(host: str) -> None:
    async with ScriptedServer() as server:
        server.on("/", replied(b"secret"))
        with pytest.raises(AddressRefusedError, match="allow_networks"):
            await ask(AddressPolicy(), other_name(server.url, host) + "/?token=abc")
        assert server.seen == []


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f000001"])
async def test_request_to_another_spelling_of_a_private_address_is_refused(host: str) -> None:
    async with ScriptedServer() as server:
        port = URL(server.url).port
        with pytest.raises(aiohttp.ClientError):
            await ask(AddressPolicy(), f"http://{host}:{port}/")
        assert server.seen == []


async def test_request_to_a_private_address_of_the_configuration_is_sent() -> None:
    async with ScriptedServer() as server:
        server.on("/", replied(b"inside"))
        assert await ask(AddressPolicy({"localhost"}), other_name(server.url) + "/") == "inside"
        assert await ask(AddressPolicy({"127.0.0.1"}), server.url + "/") == "inside"
        assert await ask(AddressPolicy(networks=[ip_network("127.0.0.0/8")]), other_name(server.url) + "/") == "inside"


async def test_redirect_that_aiohttp_follows_is_checked() -> None:
    async with ScriptedServer() as server, ScriptedServer() as inner:
        server.on("/", redirected(other_name(inner.url) + "/"))
        inner.on("/", replied(b"inside"))
        with pytest.raises(AddressRefusedError):
            await ask(AddressPolicy({"127.0.0.1"}), server.url + "/")
        assert inner.seen == []


async def test_connection_uses_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to a public address first and to a private one a moment later is resolved only once."""
    resolved = []
    real = socket.getaddrinfo

    def rebinding(host: str, *arguments: object, **options: object) -> object:
        resolved.append(host)
        return real("127.0.0.1", *arguments, **options)  # type: ignore[arg-type]  # forwarded unchanged

    async with ScriptedServer() as server:
        server.on("/", replied(b"inside"))
        monkeypatch.setattr(socket, "getaddrinfo", rebinding)
        with pytest.raises(AddressRefusedError):
            await ask(AddressPolicy(), f"http://rebind.example:{URL(server.url).port}/")
        assert await ask(
            AddressPolicy(networks=[ip_network("127.0.0.0/8")]), f"http://rebind.example:{URL(server.url).port}/"
        )
    assert resolved == ["rebind.example", "rebind.example"]


def downloader(settings: ConnectionSettings) -> tuple[HttpClient, Downloader]:
    client = HttpClient("gio", settings.base_url, Redactor(), address_policy=settings.address_policy())
    return client, Downloader(client, StaticAuth(authorization("Token", CANARY)), settings.allow_hosts)


async def fetch(base_url: str, **settings: object) -> int:
    connection = ConnectionSettings.model_validate({"platform": "growingio", "base_url": base_url} | settings)
    client, files = downloader(connection)
    try:
        async with files.open(URL(base_url + "/a.csv"), "a.csv") as download:
            return sum([len(chunk) async for chunk in download.chunks()])
    finally:
        await client.close()


async def test_allowed_host_with_a_private_address_needs_its_network_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **options: real("127.0.0.1", *rest, **options))
    async with ScriptedServer() as server, ScriptedServer() as storage:
        server.on("/a.csv", redirected(other_name(storage.url, "files.example.cn") + "/b.csv"))
        storage.on("/b.csv", replied(b"abc"))
        with pytest.raises(DownloadForbiddenError, match=r"files\.example\.cn leads to an address that is not public"):
            await fetch(server.url, allow_hosts=["files.example.cn"])
        assert storage.seen == []
        allowed = await fetch(server.url, allow_hosts=["files.example.cn"], allow_networks=["127.0.0.0/8"])
        assert allowed == 3
        assert "Authorization" not in storage.seen[0].headers


@pytest.mark.parametrize("base_host", ["bücher.example", "xn--bcher-kva.example", "BÜCHER.example."])
@pytest.mark.parametrize("target_host", ["bücher.example", "xn--bcher-kva.example"])
async def test_own_host_in_another_script_may_have_a_private_address(
    monkeypatch: pytest.MonkeyPatch, base_host: str, target_host: str
) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **options: real("127.0.0.1", *rest, **options))
    async with ScriptedServer() as server:
        server.on("/a.csv", redirected(str(URL(server.url).with_host(target_host)) + "/b.csv"))
        server.on("/b.csv", replied(b"abc"))
        assert await fetch(f"http://{base_host}:{URL(server.url).port}") == 3


async def test_host_with_an_ipv6_address_is_allowed_by_address_and_port() -> None:
    async with ScriptedServer() as server, ScriptedServer("::1") as storage:
        port = URL(storage.url).port
        server.on("/a.csv", redirected(f"http://[0:0:0:0:0:0:0:1]:{port}/b.csv"))
        storage.on("/b.csv", replied(b"abc"))
        for refused in ([], ["[::1]:1"], [f"[::2]:{port}"]):
            with pytest.raises(DownloadForbiddenError):
                await fetch(server.url, allow_hosts=refused)
        assert storage.seen == []
        assert await fetch(server.url, allow_hosts=[f"[::1]:{port}"]) == 3


async def test_download_that_expands_without_end_is_refused() -> None:
    bomb = zlib.compress(bytes(8 * EXPANSION_FREE_BYTES), 9)
    async with ScriptedServer() as server:
        server.on("/a.csv", replied(bomb, headers={"Content-Encoding": "deflate"}))
        with pytest.raises(DownloadInvalidError, match="compressed bytes became more than"):
            await fetch(server.url)


async def test_download_that_compresses_well_is_accepted() -> None:
    rows = b"".join(b"%08d,2026-11-25,CN,zh,web\n" % number for number in range(800_000))
    assert len(rows) > EXPANSION_FREE_BYTES
    async with ScriptedServer() as server:
        server.on("/a.csv", replied(zlib.compress(rows, 1), headers={"Content-Encoding": "deflate"}))
        assert await fetch(server.url) == len(rows)


@pytest.mark.parametrize("headers", [{"X-Long": "x" * 70_000}, {f"X-{number}": "x" for number in range(400)}])
async def test_response_with_endless_headers_is_refused(headers: dict[str, str]) -> None:
    async with ScriptedServer() as server:
        server.on("/api", replied(b"{}", headers=headers))
        client = HttpClient("gio", server.url, Redactor())
        with pytest.raises(PlatformMalformedError):
            await client.exchange(Call("GET", "/api"))
        await client.close()


async def test_response_that_expands_without_end_is_refused() -> None:
    bomb = zlib.compress(bytes(LISTING_MAX_BYTES + 1), 9)
    async with ScriptedServer() as server:
        server.on("/api", replied(bomb, headers={"Content-Encoding": "deflate"}))
        client = HttpClient("gio", server.url, Redactor())
        with pytest.raises(PlatformMalformedError, match="more than"):
            await client.exchange(Call("GET", "/api"))
        await client.close()
