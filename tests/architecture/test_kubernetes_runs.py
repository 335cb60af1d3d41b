"""The Kubernetes manifests as processes: their commands, settings, variables and probes run exports to their end."""

import asyncio
import json
import re
import signal
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from export_producers import ExportQueue
from export_worker.contract.status import Phase
from export_worker.demo.processes import EXPORT_WORKER
from export_worker.redis.client import close_redis, commands, open_redis
from support.deployment import installed
from support.deployment_processes import DeploymentProcesses
from support.manifests import (
    DEPLOYMENTS,
    DEVELOPMENT,
    PRODUCTION,
    config_text,
    container,
    of_kind,
    pod,
    secret_values,
    variables,
)

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
CONSOLE_KEYS = ("CONSOLE_KEY", "CONSOLE_GUEST_KEY")
"""The variables with which the development overlay opens the console. In production, it is an option."""
EXPORTS_TIMEOUT_S = 60.0


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_development_and_production_run_the_same_commands(name: str) -> None:
    """The test below runs the development overlay, which has Redis and S3; so its result holds for production."""
    same = ("args", "command", "ports", "lifecycle", "resources", *PROBES)
    development, production = container(name, DEVELOPMENT), container(name)
    assert {key: development.get(key) for key in same} == {key: production.get(key) for key in same}
    own = [*CONSOLE_KEYS] if name == "gateway" else []
    assert [item["name"] for item in development["env"]] == own + [item["name"] for item in production["env"]]
    settings, others = tomllib.loads(config_text(DEVELOPMENT)), tomllib.loads(config_text(PRODUCTION))
    assert [key["key"] for key in settings["gateway"].pop("keys").values()] == [f"env:{key}" for key in CONSOLE_KEYS]
    for section in ("worker", "gateway", "transfer", "triggers"):
        assert settings[section] == others[section]


class Cluster(DeploymentProcesses):
    """The pods of the development overlay, one of each Deployment, as processes."""

    async def run(self, name: str) -> asyncio.subprocess.Process:
        """Starts the container of one Deployment."""
        found = container(name, DEVELOPMENT)
        arguments = installed([*found.get("command", ["export-worker"]), *found["args"]])
        return await self.start(name, arguments, self.environment_of(name))

    def environment_of(self, name: str) -> dict[str, str]:
        """Returns the environment of the container of one Deployment."""
        return self.environment(name, variables(container(name, DEVELOPMENT), DEVELOPMENT), config_text(DEVELOPMENT))

    async def services(self) -> None:
        """Starts the other services of the overlay. Redis is that of the tests."""
        for name in ("s3", "simulator"):
            process = await self.run(name)
            (port,) = container(name, DEVELOPMENT)["ports"]
            await self.wait_until_listening(name, process, str(port["containerPort"]))
        hook = container("s3", DEVELOPMENT)["lifecycle"]["postStart"]["exec"]["command"]
        hook_process = await self.start("s3-post-start", installed(hook), self.environment_of("s3"))
        assert await hook_process.wait() == 0, self.log("s3-post-start")

    def port(self, name: str, port: str) -> str:
        """Returns the port of this machine that replaces a named port of a container."""
        numbers = {item["name"]: str(item["containerPort"]) for item in container(name, DEVELOPMENT)["ports"]}
        return self.addresses(name)[numbers[port]]

    async def probe(self, client: aiohttp.ClientSession, name: str, probe: str) -> None:
        """Probes as the kubelet does, until the probe succeeds or its failure threshold is reached."""
        settings = container(name, DEVELOPMENT)[probe]
        url = f"http://127.0.0.1:{self.port(name, settings['httpGet']['port'])}{settings['httpGet']['path']}"
        async with asyncio.timeout(settings.get("periodSeconds", 10) * settings.get("failureThreshold", 3)):
            while not await self._answers(client, url, settings.get("timeoutSeconds", 1)):
                await asyncio.sleep(0.05)

    @staticmethod
    async def _answers(client: aiohttp.ClientSession, url: str, timeout_s: float) -> bool:
        try:
            async with client.get(url, timeout=aiohttp.ClientTimeout(timeout_s)) as response:
                return response.status < 400
        except (aiohttp.ClientError, TimeoutError):
            return False


@asynccontextmanager
async def cluster(directory: Path, redis_url: str, namespace: str) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        pods = Cluster(directory, redis_url, namespace, stack)
        await pods.services()
        yield pods


async def enqueue(client: aiohttp.ClientSession, url: str) -> str:
    """Enqueues one export through the gateway, and returns its id."""
    headers = {"Authorization": f"Bearer {secret_values(DEVELOPMENT)['gateway-key']}"}
    body = {"connection": "gio", "export": SEGMENT}
    async with client.post(f"{url}/v1/exports", json=body, headers=headers) as response:
        assert response.status == 202, await response.text()
        return str((await response.json())["export_id"])


async def send_message(pods: Cluster) -> None:
    """Adds one message to the stream that the trigger reads."""
    data = {"project": SEGMENT["project_id"], "segment": SEGMENT["segment_id"]}
    event = {"specversion": "1.0", "id": uuid4().hex, "source": "/test", "type": "segment.ready", "data": data}
    redis = open_redis(pods.redis_url)
    await commands(redis).xadd(pods.stream, {"event": json.dumps(event)})
    await close_redis(redis)


async def doctor(pods: Cluster) -> list[dict[str, Any]]:
    """Returns the findings of `doctor` in the gateway's pod, where k8s/README.md runs it."""
    process = await asyncio.create_subprocess_exec(
        *EXPORT_WORKER,
        "doctor",
        "--json",
        env=pods.environment_of("gateway"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, (output, errors)
    found: list[dict[str, Any]] = json.loads(output)["findings"]
    return found


async def stop(name: str, process: asyncio.subprocess.Process) -> None:
    """Stops a process as the kubelet does. The wait of its preStop hook counts in its grace period."""
    hook = container(name, DEVELOPMENT).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    waits_s = sum(float(found) for found in re.findall(r"sleep\((\d+)\)", " ".join(hook)))
    assert bool(waits_s) == bool(hook), hook
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(pod(name, DEVELOPMENT)["terminationGracePeriodSeconds"] - waits_s):
        assert await process.wait() == 0, name


async def test_pods_run_exports_answer_probes_and_stop_in_time(tmp_path: Path, redis_url: str, namespace: str) -> None:
    async with cluster(tmp_path, redis_url, namespace) as pods, aiohttp.ClientSession() as client:
        processes = dict(zip(DEPLOYMENTS, await asyncio.gather(*map(pods.run, DEPLOYMENTS)), strict=True))
        for probe in PROBES:
            await asyncio.gather(*(pods.probe(client, name, probe) for name in DEPLOYMENTS))
        for name, process in processes.items():
            for port in container(name, DEVELOPMENT)["ports"]:
                await pods.wait_until_listening(name, process, str(port["containerPort"]))
        url = f"http://127.0.0.1:{pods.port('gateway', 'http')}"
        enqueued = [await enqueue(client, url) for _ in range(3)]
        await send_message(pods)
        async with ExportQueue(redis_url, namespace=namespace) as queue, asyncio.timeout(EXPORTS_TIMEOUT_S):
            while len(accepted := await queue.list_exports()) <= len(enqueued):
                await asyncio.sleep(0.05)
            ended = [await queue.wait(status.export_id) for status in accepted]
        found = await doctor(pods)
        await asyncio.gather(*(stop(name, process) for name, process in processes.items()))

    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * (len(enqueued) + 1)
    assert {*enqueued} < {status.export_id for status in ended}
    assert all(status.objects[0].uri.startswith("s3://exports/") for status in ended)
    assert_no_error(found)
    assert all("Traceback" not in pods.log(name) for name in DEPLOYMENTS)


def assert_no_error(findings: list[dict[str, Any]]) -> None:
    """No finding is an error. Redis and S3 of the tests do not persist data, so `doctor` warns about them."""
    assert {finding["about"] for finding in findings} >= {"redis", "s3", "connection gio", "workers"}
    assert not [finding for finding in findings if finding["level"] == "error"]
    levels = [finding["level"] for finding in findings if finding["about"] in {"workers", "connection gio"}]
    assert {*levels} == {"ok"}, findings


def test_every_service_targets_a_port_that_exists() -> None:
    for service in of_kind(DEVELOPMENT, "Service").values():
        selector = service["spec"]["selector"].items()
        workloads = [*of_kind(DEVELOPMENT, "Deployment").values(), *of_kind(DEVELOPMENT, "StatefulSet").values()]
        (workload,) = [item for item in workloads if selector <= item["spec"]["template"]["metadata"]["labels"].items()]
        ports = workload["spec"]["template"]["spec"]["containers"][0]["ports"]
        known = {value for item in ports for value in (item["name"], item["containerPort"])}
        for item in service["spec"]["ports"]:
            assert item.get("targetPort", item["port"]) in known
