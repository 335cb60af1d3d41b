"""Proxies and certificates of a connection, over real sockets: what is used, what is refused, and what errors say."""

import os
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs
from yarl import URL

from export_worker.config import Config
from export_worker.credentials import Redactor
from export_worker.doctor.proxies import unused_proxies
from export_worker.egress.address_policy import AddressPolicy
from export_worker.egress.connection_trouble import PlatformUnconnectedError
from export_worker.egress.connector import AddressRefusedError
from export_worker.egress.network import Network
from export_worker.egress.network_settings import NetworkSettings
from export_worker.egress.proxies import parse_proxy
from export_worker.errors import ConfigError
from export_worker.platforms.http.auth import StaticAuth, authorization
from export_worker.platforms.http.client import Call, HttpClient
from export_worker.platforms.http.downloads import Downloader
from export_worker.platforms.settings import ConnectionSettings
from export_worker.sinks.base import SinkError, SinkUnconnectedError
from export_worker.sinks.webhook import Webhook
from export_worker.wiring.secrets import build_redactor
from support.certificates import Authority, Certificate
from support.proxy_server import proxy_server
from support.scripted_server import CANARY, ScriptedServer, json_replied, redirected, replied
from support.tls_refusal import refusing_server

PLATFORM, FILES = "platform.example.cn", "files.example.cn"
LOGIN = "worker:Sesame%2Fopen"
"""As it is in an address. The password itself has a slash."""
PLAIN_LOGIN = "worker:Sesame/open"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def served(authority: Authority) -> Certificate:
    """The certificate of the platform, the host of its files, and the proxy."""
    return authority.issue(PLATFORM, FILES, "127.0.0.1")


@asynccontextmanager
async def client(base_url: str, **settings: Any) -> AsyncIterator[HttpClient]:
    connection = ConnectionSettings.model_validate({"platform": "growingio", "base_url": base_url, **settings})
    opened = HttpClient.for_connection("gio", connection, Redactor())
    try:
        yield opened
    finally:
        await opened.close()


async def submit(base_url: str, **settings: Any) -> Any:
    async with client(base_url, **settings) as opened:
        call = Call("POST", "/jobs", json={}, starts_work=True)
        return await opened.call(call, StaticAuth(authorization("Token", CANARY)))


async def submit_error(base_url: str, **settings: Any) -> str:
    """Returns the message of a submit that fails before the platform can have received it."""
    with pytest.raises(PlatformUnconnectedError) as caught:
        await submit(base_url, **settings)
    assert not caught.value.unclear
    return str(caught.value)


@pytest.mark.parametrize("proxy_has_tls", [False, True])
@pytest.mark.parametrize("platform_has_tls", [False, True])
async def test_calls_and_downloads_from_another_host_go_through_the_proxy(
    authority: Authority, served: Certificate, *, proxy_has_tls: bool, platform_has_tls: bool
) -> None:
    tls = served.server() if platform_has_tls else None
    scheme, port = ("https", 443) if platform_has_tls else ("http", 80)
    content = os.urandom(3 * 1024 * 1024)
    async with ScriptedServer(tls=tls) as platform, ScriptedServer(tls=tls) as files:
        targets = {f"{PLATFORM}:{port}": platform.port, f"{FILES}:{port}": files.port}
        platform.on("/jobs", json_replied({"job": 1}))
        platform.on("/a.csv", redirected(f"{scheme}://{FILES}/b.csv"))
        files.on("/b.csv", replied(content))
        proxy_tls = served.server() if proxy_has_tls else None
        async with proxy_server(targets, login=PLAIN_LOGIN, tls=proxy_tls) as proxy:
            settings = {"proxy": proxy.with_login(LOGIN), "ca_file": str(authority.path), "allow_hosts": [FILES]}
            base_url = f"{scheme}://{PLATFORM}"
            assert await submit(base_url, **settings) == {"job": 1}
            async with client(base_url, **settings) as opened:
                files_of = Downloader(opened, StaticAuth(authorization("Token", CANARY)), [FILES])
                async with files_of.open(opened.url("/a.csv"), "a.csv") as download:
                    receiver = download.receiver(lambda _: None)
                    assert receiver is not None
                    received = bytearray(len(content))
                    assert await receiver.receive_into(memoryview(received)) == len(content)
        assert received == content
        assert proxy.asked == [f"{PLATFORM}:{port}", f"{PLATFORM}:{port}", f"{FILES}:{port}"]
        assert "Authorization" not in files.seen[0].headers
        assert not any("Proxy-Authorization" in seen.headers for seen in platform.seen + files.seen)


def masked(text: str) -> str:
    for secret in ("Sesame", b64encode(PLAIN_LOGIN.encode()).decode()):
        assert secret not in text
    return text


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("login", "says"), [("", "requires a user and a password"), (LOGIN, "refused the user or the password")]
)
async def test_refused_login_of_the_proxy_is_named(scheme: str, login: str, says: str) -> None:
    async with proxy_server({}, login="worker:another") as proxy:
        address = proxy.with_login(login) if login else proxy.url
        message = masked(await submit_error(f"{scheme}://{PLATFORM}", proxy=address))
    host = URL(proxy.url).authority
    assert message == f"POST /jobs: the proxy {host} {says} (HTTP 407); correct them in connections.gio.proxy"


async def test_refusals_and_absence_of_the_proxy_are_named(served: Certificate) -> None:
    target = f"{PLATFORM}:443"
    async with proxy_server({}, forbidden=frozenset({target}), login=PLAIN_LOGIN) as proxy:
        address = proxy.with_login(LOGIN)
        host = URL(proxy.url).authority
        forbidden = await submit_error(f"https://{PLATFORM}", proxy=address)
        unknown = await submit_error("https://unknown.example.cn", proxy=address)
        no_tls = await submit_error(f"https://{PLATFORM}", proxy=address.replace("http:", "https:"))
    gone = await submit_error(f"http://{PLATFORM}", proxy=address)
    assert f"the proxy {host} refused to connect to {target} (HTTP 403); check the rules" in masked(forbidden)
    assert "refused to connect to unknown.example.cn:443 (HTTP 502); check the rules and the DNS" in masked(unknown)
    assert f"{host} does not use TLS" in masked(no_tls)
    assert f"cannot connect to the proxy {host} (connection refused); correct connections.gio.proxy" in masked(gone)


Context = Callable[[Authority, Path], ssl.SSLContext]


@pytest.mark.parametrize(
    ("context", "says"),
    [
        (
            lambda known, _: known.issue("127.0.0.1", days=(-2, -1)).server(),
            "has expired; renew it on that server, or correct the clock of this machine",
        ),
        (lambda known, _: known.issue("127.0.0.1", days=(1, 2)).server(), "is not valid yet; correct the clock"),
        (lambda known, _: known.issue("other.example.cn").server(), "is for another host; use a name that"),
        (lambda known, _: known.issue("127.0.0.2").server(), "is for another host; use a name that"),
        (
            lambda _, folder: Authority(folder, "unknown").issue("127.0.0.1").server(),
            "comes from an authority that is not trusted here; add its certificate to connections.gio.ca_file",
        ),
    ],
    ids=["expired", "early", "other name", "other address", "unknown authority"],
)
async def test_wrong_certificate_is_refused_and_named(
    authority: Authority, tmp_path: Path, context: Context, says: str
) -> None:
    async with ScriptedServer(tls=context(authority, tmp_path)) as platform:
        assert says in await submit_error(platform.url, ca_file=str(authority.path))
        assert platform.seen == []


async def test_server_without_tls_is_named() -> None:
    async with ScriptedServer() as platform:
        message = await submit_error(platform.url.replace("http:", "https:"))
    assert f"127.0.0.1:{platform.port} does not use TLS; use its port for TLS" in message


@pytest.mark.parametrize("password", [None, "opens the key"])
async def test_client_certificate_is_shown_to_the_own_server_and_to_no_other(
    authority: Authority, *, password: str | None
) -> None:
    shown = authority.issue("export-worker", password=password)
    settings = {"ca_file": str(authority.path), "client_cert": str(shown.path_with_key)}
    if password is None:
        settings |= {"client_cert": str(shown.path), "client_key": str(shown.path_with_key)}
    else:
        settings |= {"client_key_password": password}
    asking = authority.issue("127.0.0.1").server(clients_of=authority.path)
    async with ScriptedServer(tls=asking) as platform:
        with refusing_server(asking) as other:
            platform.on("/jobs", json_replied({"job": 1}))
            platform.on("/a.csv", redirected(f"{other}/b.csv"))
            assert await submit(platform.url, **settings) == {"job": 1}
            async with client(platform.url, **settings) as opened:
                files = Downloader(opened, StaticAuth(authorization("Token", CANARY)), [URL(other).authority])
                with pytest.raises(PlatformUnconnectedError, match="requires a client certificate"):
                    async with files.open(opened.url("/a.csv"), "a.csv"):
                        pass


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_missing_and_unknown_client_certificates_are_named(
    authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    asking = authority.issue("127.0.0.1").server(clients_of=authority.path)
    asking.minimum_version = asking.maximum_version = version
    unknown = Authority(tmp_path, "unknown").issue("export-worker")
    with refusing_server(asking) as url:
        missing = await submit_error(url, ca_file=str(authority.path))
        refused = await submit_error(url, ca_file=str(authority.path), client_cert=str(unknown.path_with_key))
    assert "requires a client certificate" in missing
    assert "set connections.gio.client_cert" in missing
    assert "refused the client certificate: it does not know the authority; correct connections.gio.client_cert" in (
        refused
    )


async def test_changed_file_of_authorities_is_read_again(authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "authorities.pem"
    file.write_bytes(Authority(tmp_path, "previous").path.read_bytes())
    async with ScriptedServer(tls=authority.issue("127.0.0.1").server()) as platform:
        platform.on("/", replied(b"inside"))
        url = URL(platform.url)
        network = Network("connections.gio", NetworkSettings(ca_file=str(file)), url, Redactor(), check_s=0)
        async with aiohttp.ClientSession(connector=network.connector(AddressPolicy({"127.0.0.1"}))) as session:

            async def ask() -> bytes:
                async with session.get(url, **await network.options(url)) as response:
                    return await response.read()

            with pytest.raises(aiohttp.ClientSSLError):
                await ask()
            file.write_text("half of a file")
            with pytest.raises(aiohttp.ClientSSLError):
                await ask()
            file.write_bytes(authority.path.read_bytes())
            assert await ask() == b"inside"


async def test_files_that_cannot_be_used_are_tried_again_even_if_none_changes(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXY_OF_GIO", "http://one.example:1")
    file = tmp_path / "authorities.pem"
    file.write_bytes(authority.path.read_bytes())
    settings = NetworkSettings.model_validate({"ca_file": str(file), "proxy": "env:PROXY_OF_GIO"})
    network = Network("connections.gio", settings, URL(f"https://{PLATFORM}"), Redactor(), check_s=0)
    file.write_bytes(Authority(tmp_path, "next").path.read_bytes())
    monkeypatch.delenv("PROXY_OF_GIO")
    with capture_logs() as logs:
        assert [await used_proxy(network), await used_proxy(network)] == ["http://one.example:1"] * 2
        monkeypatch.setenv("PROXY_OF_GIO", "http://two.example:2")
        assert await used_proxy(network) == "http://two.example:2"
    assert [log["event"] for log in logs] == ["network.files_not_used", "network.files_read_again"]


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "[::1]", "169.254.169.254", "127.1", "2130706433", "0x7f.1", "127.0.0.1.", "localhost", "a.localhost"],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_proxy_is_not_asked_for_a_private_address(scheme: str, host: str) -> None:
    async with proxy_server({}) as proxy:
        settings = NetworkSettings.model_validate({"proxy": proxy.url})
        url = URL(f"{scheme}://{host}/")
        network = Network("connections.gio", settings, URL(f"https://{PLATFORM}"), Redactor())
        async with aiohttp.ClientSession(connector=network.connector(AddressPolicy({PLATFORM}))) as session:
            with pytest.raises(AddressRefusedError):
                await session.get(url, **await network.options(url))
    assert (proxy.asked, proxy.refused) == ([], [])


def network_of(environment: dict[str, str], own: str = f"https://{PLATFORM}", **settings: Any) -> Network:
    checked = NetworkSettings.model_validate(settings)
    return Network("connections.gio", checked, URL(own), Redactor(), environment=environment)


async def used_proxy(network: Network, url: str = f"https://{PLATFORM}/x") -> str | None:
    found = (await network.options(URL(url)))["proxy"]
    return None if found is None else str(found)


async def test_variables_apply_only_with_trust_env() -> None:
    environment = {"HTTPS_PROXY": "https.example:1", "HTTP_PROXY": "http://http.example:2", "NO_PROXY": "own.example"}
    assert await used_proxy(network_of(environment)) is None
    trusting = network_of(environment, trust_env=True)
    assert await used_proxy(trusting) == "http://https.example:1"
    assert await used_proxy(trusting, "http://x.example/") == "http://http.example:2"
    assert await used_proxy(trusting, "https://a.own.example/") is None
    explicit = network_of(environment, trust_env=True, proxy="http://set.example:3")
    assert await used_proxy(explicit) == "http://set.example:3"
    assert await used_proxy(explicit, "https://own.example/") is None
    assert await used_proxy(network_of(environment, proxy="http://set.example:3"), "https://own.example/") == (
        "http://set.example:3"
    )
    assert await used_proxy(network_of({"all_proxy": "http://all.example"}, trust_env=True)) == "http://all.example"


@pytest.mark.parametrize(
    ("no_proxy", "url", "bypassed"),
    [
        ("*", "https://a.example", True),
        ("example", "https://a.example", True),
        (".example", "https://a.example", True),
        ("*.example", "https://a.example", True),
        ("ample", "https://a.example", False),
        ("a.example:443", "https://A.example.", True),
        ("a.example:444", "https://a.example", False),
        ("b.example, 10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://10.example", False),
        ("1.2.3", "http://0.1.2.3", False),
        ("::1", "http://[::1]:80", True),
        ("", "https://a.example", False),
        ("not a host", "https://a.example", False),
    ],
)
async def test_no_proxy_names_hosts_ports_and_networks(no_proxy: str, url: str, *, bypassed: bool) -> None:
    environment = {"http_proxy": "p:1", "https_proxy": "p:1", "no_proxy": no_proxy}
    assert (await used_proxy(network_of(environment, trust_env=True), url) is None) == bypassed


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"proxy": "socks5://proxy.example:1080"}, "connections.gio.proxy: must be like http://proxy.example:3128"),
        ({"proxy": "http://user:Sesame/open@proxy.example"}, "must be percent-encoded"),
        ({"proxy": "http://proxy.example:0"}, "must be like"),
        ({"proxy": "http://a..example:1"}, "must be like"),
        ({"ca_file": "a\0b"}, "connections.gio.ca_file: is no path of a file"),
        ({"proxy": "env:NO_SUCH_VARIABLE"}, "environment variable NO_SUCH_VARIABLE is not set"),
        ({"trust_env": True}, "ALL_PROXY: must be like"),
        ({"ca_file": "/none.pem"}, r"connections.gio.ca_file: cannot read /none.pem \(No such file or directory\)"),
        ({"ca_file": __file__}, "has no certificate in PEM format"),
        ({"client_cert": __file__}, "connections.gio.client_cert: .* no certificate with its key in PEM format"),
        ({"client_key": __file__}, "connections.gio.client_key: needs client_cert"),
    ],
)
def test_wrong_settings_are_refused_without_showing_secrets(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        network_of({"ALL_PROXY": "socks5://user:Sesame@proxy.example"}, **settings)
    masked(str(caught.value))


def test_wrong_keys_are_refused(authority: Authority) -> None:
    one, other = authority.issue("one"), authority.issue("other")
    locked = authority.issue("locked", password="opens")
    with pytest.raises(ConfigError, match="client_key: the key does not belong to"):
        network_of({}, client_cert=str(one.path), client_key=str(other.path_with_key))
    with pytest.raises(ConfigError, match="client_key_password: the key is encrypted; set"):
        network_of({}, client_cert=str(locked.path_with_key))
    for wrong in ("wrong", "x" * 2000):
        with pytest.raises(ConfigError, match="client_key_password: it is not the password of the key"):
            network_of({}, client_cert=str(locked.path_with_key), client_key_password=wrong)


async def test_webhook_goes_through_the_proxy_and_names_what_it_refuses(
    authority: Authority, served: Certificate
) -> None:
    async with ScriptedServer(tls=served.server()) as receiver:
        receiver.on("/hook", replied(status=204))
        async with proxy_server({f"{PLATFORM}:443": receiver.port}, login=PLAIN_LOGIN) as proxy:

            async def deliver(url: str, **settings: Any) -> None:
                network = network_of({}, own=url, ca_file=str(authority.path), **settings)
                sink = Webhook(url, [b"x" * 24], timeout_s=20, network=network)
                try:
                    await sink.deliver("id", "{}")
                finally:
                    await sink.close()

            await deliver(f"https://{PLATFORM}/hook", proxy=proxy.with_login(LOGIN))
            for scheme in ("http", "https"):
                with pytest.raises(SinkUnconnectedError, match="requires a user and a password") as caught:
                    await deliver(f"{scheme}://{PLATFORM}/hook", proxy=proxy.url)
                masked(str(caught.value))
            proxy.targets["other.example.cn:443"] = receiver.port
            with pytest.raises(SinkUnconnectedError, match=r"other\.example\.cn:443 is for another host"):
                await deliver("https://other.example.cn/hook", proxy=proxy.with_login(LOGIN))
            with pytest.raises(SinkError, match="not public"):
                await deliver("https://10.0.0.1/hook", proxy=proxy.with_login(LOGIN))
    assert [seen.method for seen in receiver.seen] == ["POST"]
    assert proxy.asked == [f"{PLATFORM}:443", "other.example.cn:443"]


def test_passwords_of_proxies_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://someone:Hidden%2Fword@proxy.example:3128")
    monkeypatch.setenv("PROXY_OF_GIO", f"http://{LOGIN}@proxy.example.cn:3128")
    connection = {"platform": "growingio", "base_url": f"https://{PLATFORM}", "proxy": "env:PROXY_OF_GIO"}
    config = Config.model_validate({"connections": {"gio": connection}})
    redactor = build_redactor(config)
    seen = (
        f"{LOGIN} {PLAIN_LOGIN} {b64encode(PLAIN_LOGIN.encode()).decode()} Hidden/word Hidden%2Fword proxy.example.cn"
    )
    shown = masked(redactor.text(seen))
    assert "Hidden" not in shown
    assert "proxy.example.cn" in shown
    assert masked(repr(parse_proxy("proxy", f"http://{LOGIN}@proxy.example.cn"))).startswith("Proxy(scheme='http'")
    assert "proxy.example" not in repr(config.connections["gio"])


def test_doctor_warns_of_variables_that_are_not_used() -> None:
    environment = {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": "own.example.cn"}
    sections: dict[str, dict[str, Any]] = {
        "gio": {"base_url": f"https://{PLATFORM}"},
        "plain": {"base_url": f"http://{PLATFORM}"},
        "own": {"base_url": "https://own.example.cn"},
        "decided": {"base_url": f"https://{PLATFORM}", "trust_env": False},
        "proxied": {"base_url": f"https://{PLATFORM}", "proxy": "http://proxy.example:1"},
    }
    connections = {name: {"platform": "growingio", **section} for name, section in sections.items()}
    hook = {"type": "webhook", "url": f"https://{PLATFORM}/hook", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    config = Config.model_validate({"connections": connections, "sinks": {"hook": hook}})
    [finding] = unused_proxies(config, environment)
    assert finding.level == "warning"
    assert finding.says == "HTTPS_PROXY is set, but connections.gio, sinks.hook do not use it"
    assert "trust_env = true" in finding.fix
    assert unused_proxies(config, {}) == []
