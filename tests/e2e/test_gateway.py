"""The gateway as a process: fuzzed with its own OpenAPI document, stopped, killed, and started with wrong settings."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import aiohttp
import pytest
from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_worker.contract.redis_keys import Keys
from export_worker.simulator.world import World
from support import secret_canaries, worker_site
from support.worker_site import Running, Site, wait_until

SEED = "7"
EXAMPLES = "8"
"""For each operation: enough to cover every kind of invalid parameter, and few enough to run in every test run."""
REQUEST = {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "t"}}
AUTHORIZED = {"Authorization": f"Bearer {secret_canaries.GATEWAY_KEY}"}


@pytest.fixture
def site(redis_url: str, namespace: str, outputs: Path) -> Site:
    """A site whose only real service is Redis: the gateway needs no other."""
    site = Site(redis_url, "http://127.0.0.1:1", "http://127.0.0.1:1", namespace, "bucket", outputs)
    site.settings = {"gateway": {"port": 0, "requests_per_second": 1e6, "burst": 1_000_000, "stop_s": 5}}
    return site


@contextmanager
def running(site: Site, **environment: str) -> Iterator[tuple[str, Running]]:
    """Runs a gateway process while the block runs. Yields its URL and the process."""
    with site.process("gateway", **environment) as process:
        process.until_logged("gateway: http://")
        found = re.search(r"gateway: (http://\S+)", process.log.read_text(encoding="utf-8"))
        assert found is not None
        yield found[1], process


def test_responses_to_fuzzed_requests_match_the_openapi_document(site: Site, tmp_path: Path) -> None:
    # If neither the configuration nor a worker names connections, requests for any connection are accepted.
    site.settings["connections"] = {}
    with running(site) as (url, process):
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json"]
        command += ["--seed", SEED, "--max-examples", EXAMPLES, "--no-color", "--request-timeout", "30"]
        command += ["--exclude-path-regex", "(events|metrics|stream|doctor)$", "--suppress-health-check", "all"]
        command += ["--generation-database", "none", "--phases", "examples,coverage,fuzzing,stateful"]
        command += ["--exclude-checks", "positive_data_acceptance"]
        fuzzed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=170, cwd=tmp_path)
        assert process.process.poll() is None
    assert fuzzed.returncode == 0, fuzzed.stdout[-6000:] + fuzzed.stderr[-2000:]
    assert "request.crashed" not in process.log.read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stop_signal_ends_streams_and_the_process(site: Site, number: signal.Signals) -> None:
    with running(site) as (url, process):
        async with aiohttp.ClientSession() as client:
            accepted = await (await client.post(f"{url}/v1/exports", json=REQUEST)).json()
            async with client.get(f"{url}/v1/exports/{accepted['export_id']}/events") as stream:
                await stream.content.readuntil(b"\n\n")
                os.kill(process.pid, number)
                assert b"event: status" in await stream.content.read()
        assert await asyncio.to_thread(process.process.wait, 20) == 0


ROUTE = '"route": "/v1/exports"'


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


async def test_keys_are_read_by_reference_and_never_logged(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("another-key-of-eight\n", encoding="utf-8")
    keys = json.dumps(["env:SOME_KEY", f"file:{file}"])
    with running(site, EXPORT_GATEWAY__API_KEYS=keys, SOME_KEY=secret_canaries.GATEWAY_KEY) as (url, process):
        async with aiohttp.ClientSession() as client:
            for headers, status in (
                (AUTHORIZED, 200),
                ({"Authorization": "Bearer another-key-of-eight"}, 200),
                ({}, 401),
            ):
                async with client.get(f"{url}/v1/exports", headers=headers) as response:
                    assert response.status == status
            async with client.get(f"{url}/v1/exports?k={secret_canaries.GATEWAY_KEY}", headers=AUTHORIZED) as response:
                assert response.status == 400
                assert secret_canaries.GATEWAY_KEY not in await response.text()
        # A process that is killed loses the lines of its last milliseconds.
        await asyncio.to_thread(wait_until, lambda: _text(process.log).count(ROUTE) == 4, 20, "four lines of requests")
    log = _text(process.log)
    assert "another-key-of-eight" not in log
    secret_canaries.check("the log", log.encode())


async def test_page_about_shows_the_configuration_and_runs_doctor_without_secrets(site: Site) -> None:
    with running(site) as (url, process):
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
            async with client.get(f"{url}/console/about") as response:
                page = await response.text()
            assert f"namespace = &#34;{site.namespace}&#34;" in page
            assert "connections.gio.token = &#34;***&#34;" in page
            (token,) = re.findall(r'name="token" value="([^"]+)"', page)
            async with client.post(f"{url}/console/about/doctor", data={"token": token}) as response:
                report = await response.text()
        assert len(re.findall("<li><span", report)) > 5
        assert re.search(r"✓ ok</span> <b><bdi>redis</bdi></b>", report)
        assert re.search(r"✕ error</span> <b><bdi>s3</bdi></b>", report)
        assert "<bdi>connection gio</bdi>" in report
        secret_canaries.check("the pages", (page + report).encode())
        # A thread of its own writes the log, and the end of the block kills the process.
        process.until_logged('"route": "/console/about/doctor", "status": 200')
    secret_canaries.check("the log", process.log.read_bytes())


WRONG_SETTINGS = [
    ({"EXPORT_GATEWAY__HOST": "0.0.0.0"}, 2, "without a key, the gateway binds only a loopback address"),
    ({"EXPORT_GATEWAY__HOST": "gateway.example"}, 2, "without a key, the gateway binds only a loopback address"),
    ({"EXPORT_GATEWAY__API_KEYS": '["env:NO_SUCH_KEY"]'}, 2, "environment variable NO_SUCH_KEY is not set"),
    ({"EXPORT_GATEWAY__API_KEYS": '[" "]'}, 2, "a key is empty"),
    ({"EXPORT_GATEWAY__API_KEYS": '["k"]', "EXPORT_GATEWAY__HOST": "192.0.2.1"}, 2, "cannot listen on 192.0.2.1"),
    ({"EXPORT_GATEWAY__API_KEYS": '["k"]', "EXPORT_GATEWAY__HOST": "no.such.host.invalid"}, 2, "is no address"),
    ({"EXPORT_GATEWAY__PORT": "70000"}, 2, "gateway.port"),
    ({"EXPORT_GATEWAY__BURST": "0"}, 2, "gateway.burst"),
    ({"EXPORT_REDIS_URL": f"redis://:{secret_canaries.TOKEN}@127.0.0.1:1/0"}, 4, "cannot reach Redis at 127.0.0.1:1/0"),
]


@pytest.mark.parametrize(("environment", "status", "message"), WRONG_SETTINGS, ids=[item[2] for item in WRONG_SETTINGS])
def test_wrong_settings_end_the_process_with_one_line(
    site: Site, environment: dict[str, str], status: int, message: str
) -> None:
    ran = site.command("gateway", **environment)
    assert (ran.status, ran.stdout) == (status, "")
    (line,) = [line for line in ran.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("error: ")
    assert message in line


def test_port_in_use_ends_the_process_with_one_line(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = site.command("gateway", EXPORT_GATEWAY__PORT=str(taken.getsockname()[1]))
    assert (ran.status, ran.stdout) == (2, "")
    assert "gateway.port: cannot listen on 127.0.0.1:" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_openapi_document_is_printed_without_the_gateway_extra(site: Site) -> None:
    code = (
        "import sys; sys.modules |= {'aiohttp': None, 'structlog': None, 'prometheus_client': None};"
        "sys.argv = ['export-worker', 'schema', 'openapi']; from export_worker.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["openapi"].startswith("3.1")
    assert "/v1/exports/{export_id}/events" in document["paths"]


@pytest.fixture
async def queue(redis_url: str, namespace: str) -> AsyncIterator[ExportQueue]:
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        yield queue


async def test_killed_gateway_loses_no_accepted_export(
    site: Site, queue: ExportQueue, arq_redis: ArqRedis, namespace: str
) -> None:
    accepted: dict[str, str] = {}
    with running(site) as (url, process):

        async def enqueue(number: int, client: aiohttp.ClientSession) -> None:
            headers = {"Idempotency-Key": f"k{number}"}
            async with client.post(f"{url}/v1/exports", json=REQUEST, headers=headers) as response:
                if response.status == 202:
                    accepted[f"k{number}"] = (await response.json())["export_id"]
                    if len(accepted) == 20:
                        process.process.kill()

        async with aiohttp.ClientSession() as client:
            await asyncio.gather(*(enqueue(number, client) for number in range(200)), return_exceptions=True)
    assert len(accepted) >= 20
    with running(site) as (url, _):
        async with aiohttp.ClientSession() as client:
            for key, export_id in accepted.items():
                headers = {"Idempotency-Key": key}
                async with client.post(f"{url}/v1/exports", json=REQUEST, headers=headers) as response:
                    again: Any = await response.json()
                    assert (again["export_id"], again["deduplicated"]) == (export_id, True)
    assert await arq_redis.zcard(Keys(namespace).open) == len(await queue.list_exports(limit=1000))


async def test_export_that_is_requested_over_http_is_stored_in_s3(
    redis_url: str, s3_url: str, simulator: Any, world: World, namespace: str, bucket: str, outputs: Path
) -> None:
    site = Site(redis_url, s3_url, simulator.url, namespace, bucket, outputs)
    site.settings = {"gateway": {"port": 0}}
    export = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
    async with worker_site.worker(site):
        with running(site) as (url, _):
            async with aiohttp.ClientSession() as client:
                async with client.post(f"{url}/v1/exports", json={"connection": "gio", "export": export}) as response:
                    location = response.headers["Location"]
                async with client.get(f"{url}{location}/events") as stream:
                    *_, last = [line async for line in stream.content if line.startswith(b"data: ")]
                async with client.get(f"{url}/v1/catalog/gio/projects") as response:
                    projects = await response.json()
                async with client.get(f"{url}/v1/catalog/gio/user-groups") as response:
                    assert response.status == 404
    assert json.loads(last.removeprefix(b"data: "))["phase"] == "succeeded"
    assert projects
    assert len(world.jobs) == 1


def test_keys_with_names_and_roles_come_from_the_configuration_and_are_masked(site: Site, tmp_path: Path) -> None:
    secret = tmp_path / "oncall.txt"
    secret.write_text(f"{secret_canaries.OAUTH_SECRET}\n", encoding="utf-8")
    site.settings["gateway"]["keys"] = {
        "ci": {"key": "env:CI_KEY", "role": "viewer", "connections": '["gio"]'},
        "oncall": {"key": f"file:{secret}", "role": "operator"},
    }
    with running(site, CI_KEY=secret_canaries.GATEWAY_KEY) as (url, process):
        found = json.loads(_get(f"{url}/v1/me", AUTHORIZED))
        assert (found["name"], found["role"], found["connections"]) == ("ci", "viewer", ["gio"])
        oncall = {"Authorization": f"Bearer {secret_canaries.OAUTH_SECRET}"}
        assert json.loads(_get(f"{url}/v1/me", oncall))["role"] == "operator"
        process.until_logged("key:oncall")
    secret_canaries.check("the log", process.log.read_bytes())
    secret_canaries.search_redis(site.redis_url)


def _get(url: str, headers: dict[str, str]) -> bytes:
    with urlopen(Request(url, headers=headers), timeout=20) as response:
        body: bytes = response.read()
        return body
