"""A worker in a company's network: an authenticating proxy, a private authority, and wrong certificates."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from export_worker.contract.status import Phase
from export_worker.simulator.scenario import Fault
from export_worker.simulator.server import Simulator
from export_worker.simulator.world import World
from support import secret_canaries, worker_site
from support.certificates import Authority
from support.proxy_server import Proxy, proxy_server, tls_front
from support.scripted_server import ScriptedServer, replied
from support.simulated_faults import add_fault
from support.worker_site import Site

PLATFORM = "platform.example.cn"
FILES = "files.example.cn"
"""Names that only the proxy can resolve."""
PASSWORD = "canary/Proxy@password"
LOGIN = "worker:canary%2FProxy%40password"
EXPORTS: dict[str, dict[str, Any]] = {
    "growingio": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    "growingio-rest": {"kind": "growingio.user_tag_users", "tag_key": "tag_rfm"},
    "thinkingdata": {"kind": "thinkingdata.cluster_users", "project_id": 102, "cluster_name": "recent_7_days_consume"},
    "sensorsdata": {"kind": "sensorsdata.user_group_users", "group_id": 42},
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def proxy(authority: Authority, simulator: Simulator) -> AsyncIterator[Proxy]:
    """An https:// proxy with a login. It leads to the simulator behind TLS."""
    async with AsyncExitStack() as stack:
        tls = authority.issue(PLATFORM).server()
        port = await stack.enter_async_context(tls_front(simulator.url, tls))
        proxy_tls = authority.issue("127.0.0.1").server()
        targets = {f"{PLATFORM}:443": port}
        yield await stack.enter_async_context(proxy_server(targets, login=f"worker:{PASSWORD}", tls=proxy_tls))


def connected(site: Site, platform: str, base_url: str, **options: Any) -> None:
    """Gives the site a connection of this platform."""
    connection = {"platform": platform, "base_url": base_url, "token": secret_canaries.TOKEN, **options}
    connection |= {"requests_per_second": 1000, "poll": worker_site.FAST_POLL}
    site.settings = {"connections": {"one": connection}, "retry": {"first_s": 0.02, "max_s": 0.1, "max_attempts": 2}}


def request(platform: str) -> str:
    return json.dumps({"connection": "one", "export": EXPORTS[platform]})


@pytest.mark.parametrize("platform", sorted(EXPORTS))
async def test_export_of_each_platform_succeeds_through_proxy_and_private_authority(
    site: Site, world: World, proxy: Proxy, authority: Authority, platform: str
) -> None:
    world.scenario = world.scenario.model_copy(update={"file_bytes": 3 * 1024 * 1024})
    connected(site, platform, f"https://{PLATFORM}", proxy=proxy.with_login(LOGIN), ca_file=str(authority.path))
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(platform))
    assert status.phase is Phase.SUCCEEDED, status.error
    assert set(proxy.asked) == {f"{PLATFORM}:443"}
    assert proxy.refused == []
    assert PASSWORD not in json.dumps(status.model_dump(mode="json"))


async def test_redirected_download_goes_through_the_proxy_to_allowed_hosts_only(
    site: Site, world: World, proxy: Proxy, authority: Authority
) -> None:
    content = b"id,name\n1,a\n"
    async with ScriptedServer(tls=authority.issue(FILES).server()) as files:
        files.on("/b.csv", replied(content))
        proxy.targets[f"{FILES}:443"] = files.port
        options = {"proxy": proxy.with_login(LOGIN), "ca_file": str(authority.path)}
        connected(site, "growingio", f"https://{PLATFORM}", allow_hosts=[FILES], **options)
        async with worker_site.worker(site):
            add_fault(world, Fault(on="download", fault="redirect", per="all", location=f"https://{FILES}/b.csv"))
            status = await worker_site.export(site, request("growingio"))
            elsewhere = "https://other.example.cn/b.csv"
            add_fault(world, Fault(on="download", fault="redirect", location=elsewhere, times=None))
            forbidden = await worker_site.export(site, request("growingio"))
    assert status.phase is Phase.SUCCEEDED, status.error
    assert site.objects()[status.objects[0].key] == content
    assert f"{FILES}:443" in proxy.asked
    assert forbidden.error is not None
    assert "neither the connection's host nor in allow_hosts" in forbidden.error.message
    assert proxy.refused == []


WRONG: dict[str, tuple[Any, str]] = {
    "expired": (lambda known, _: known.issue("127.0.0.1", days=(-2, -1)), "has expired"),
    "wrong host": (lambda known, _: known.issue("other.example.cn"), "is for another host"),
    "unknown authority": (
        lambda _, folder: Authority(folder, "unknown").issue("127.0.0.1"),
        "comes from an authority that is not trusted here",
    ),
}


@pytest.mark.parametrize("case", sorted(WRONG))
async def test_wrong_certificate_is_named_by_the_export_and_by_doctor(
    site: Site, simulator: Simulator, world: World, authority: Authority, tmp_path: Path, case: str
) -> None:
    make, says = WRONG[case]
    async with tls_front(simulator.url, make(authority, tmp_path).server()) as port:
        connected(site, "growingio", f"https://127.0.0.1:{port}", ca_file=str(authority.path))
        site.settings["connections"]["one"]["poll"] = worker_site.FAST_POLL | {"deadline_s": 3}
        async with worker_site.worker(site):
            status = await worker_site.export(site, request("growingio"))
        ran = await asyncio.to_thread(site.command, "doctor", "--json")
    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert says in status.error.message
    [found] = [each for each in json.loads(ran.stdout)["findings"] if each["about"] == "connection one"]
    assert says in found["says"]
    assert found["mend"].startswith(("renew it", "use a name", "add its certificate to connections.one.ca_file"))
    assert (found["level"], ran.status) == ("error", 4)
    assert len(world.jobs) == 0
