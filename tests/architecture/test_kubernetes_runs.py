"""The Kubernetes manifests as processes: their very commands, settings, variables and probes bring exports through."""

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
from support.deployment_processes import LocalDeployment
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
PATIENCE_S = 60.0


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_what_runs_in_development_runs_in_production(name: str) -> None:
    """So the test below, which takes the former because it brings what the latter leaves to its reader, holds both."""
    kept = ("args", "command", "ports", "lifecycle", "resources", *PROBES)
    here, there = container(name, DEVELOPMENT), container(name)
    assert {key: here.get(key) for key in kept} == {key: there.get(key) for key in kept}
    assert [item["name"] for item in here["env"]] == [item["name"] for item in there["env"]]
    settings, others = tomllib.loads(config_text(DEVELOPMENT)), tomllib.loads(config_text(PRODUCTION))
    for section in ("worker", "gateway", "transfer", "triggers"):
        assert settings[section] == others[section]


class Cluster(LocalDeployment):
    """The pods of the development overlay, one of each Deployment."""

    async def run(self, name: str) -> asyncio.subprocess.Process:
        """Start the container of one Deployment."""
        found = container(name, DEVELOPMENT)
        words = installed([*found.get("command", ["export-worker"]), *found["args"]])
        return await self.start(name, words, self.environment_of(name))

    def environment_of(self, name: str) -> dict[str, str]:
        """What the container of one Deployment gets."""
        return self.environment(name, variables(container(name, DEVELOPMENT), DEVELOPMENT), config_text(DEVELOPMENT))

    async def services(self) -> None:
        """Start what the overlay brings beside our pods; Redis is the tests'."""
        for name in ("s3", "simulator"):
            process = await self.run(name)
            (port,) = container(name, DEVELOPMENT)["ports"]
            await self.wait_until_listening(name, process, str(port["containerPort"]))
        hook = container("s3", DEVELOPMENT)["lifecycle"]["postStart"]["exec"]["command"]
        made = await self.start("s3-post-start", installed(hook), self.environment_of("s3"))
        assert await made.wait() == 0, self.log("s3-post-start")

    def port(self, name: str, port: str) -> str:
        """The port of this machine in place of a container's, which goes by its name."""
        numbers = {item["name"]: str(item["containerPort"]) for item in container(name, DEVELOPMENT)["ports"]}
        return self.replacements(name)[numbers[port]]

    async def probe(self, client: aiohttp.ClientSession, name: str, probe: str) -> None:
        """Ask as the kubelet does, until the answer is good or its patience is at an end."""
        told = container(name, DEVELOPMENT)[probe]
        url = f"http://127.0.0.1:{self.port(name, told['httpGet']['port'])}{told['httpGet']['path']}"
        async with asyncio.timeout(told.get("periodSeconds", 10) * told.get("failureThreshold", 3)):
            while not await self._answers(client, url, told.get("timeoutSeconds", 1)):
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


async def ask(client: aiohttp.ClientSession, url: str) -> str:
    """Ask the gateway for one export; its id."""
    headers = {"Authorization": f"Bearer {secret_values(DEVELOPMENT)['gateway-key']}"}
    body = {"connection": "gio", "export": SEGMENT}
    async with client.post(f"{url}/v1/exports", json=body, headers=headers) as response:
        assert response.status == 202, await response.text()
        return str((await response.json())["export_id"])


async def tell_trigger(pods: Cluster) -> None:
    """Put one message where the trigger looks."""
    data = {"project": SEGMENT["project_id"], "segment": SEGMENT["segment_id"]}
    event = {"specversion": "1.0", "id": uuid4().hex, "source": "/test", "type": "segment.ready", "data": data}
    redis = open_redis(pods.redis_url)
    await commands(redis).xadd(pods.stream, {"event": json.dumps(event)})
    await close_redis(redis)


async def doctor(pods: Cluster) -> list[dict[str, Any]]:
    """What `doctor` finds in the gateway's pod, where k8s/README.md asks it."""
    process = await asyncio.create_subprocess_exec(
        *EXPORT_WORKER,
        "doctor",
        "--json",
        env=pods.environment_of("gateway"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, complaint = await process.communicate()
    assert process.returncode == 0, (told, complaint)
    found: list[dict[str, Any]] = json.loads(told)["findings"]
    return found


async def stop(name: str, process: asyncio.subprocess.Process) -> None:
    """End one as the kubelet does: what its hook waits is taken from the time that it is granted."""
    hook = container(name, DEVELOPMENT).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    waits_s = sum(float(found) for found in re.findall(r"sleep\((\d+)\)", " ".join(hook)))
    assert bool(waits_s) == bool(hook), hook
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(pod(name, DEVELOPMENT)["terminationGracePeriodSeconds"] - waits_s):
        assert await process.wait() == 0, name


async def test_its_pods_bring_exports_through_answer_their_probes_and_stop_in_time(
    tmp_path: Path, redis_url: str, namespace: str
) -> None:
    async with cluster(tmp_path, redis_url, namespace) as pods, aiohttp.ClientSession() as client:
        processes = dict(zip(DEPLOYMENTS, await asyncio.gather(*map(pods.run, DEPLOYMENTS)), strict=True))
        for probe in PROBES:
            await asyncio.gather(*(pods.probe(client, name, probe) for name in DEPLOYMENTS))
        for name, process in processes.items():
            for port in container(name, DEVELOPMENT)["ports"]:
                await pods.wait_until_listening(name, process, str(port["containerPort"]))
        url = f"http://127.0.0.1:{pods.port('gateway', 'http')}"
        asked = [await ask(client, url) for _ in range(3)]
        await tell_trigger(pods)
        async with ExportQueue(redis_url, namespace=namespace) as queue, asyncio.timeout(PATIENCE_S):
            while len(accepted := await queue.list_exports()) <= len(asked):
                await asyncio.sleep(0.05)
            ended = [await queue.wait(status.export_id) for status in accepted]
        found = await doctor(pods)
        await asyncio.gather(*(stop(name, process) for name, process in processes.items()))

    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * (len(asked) + 1)
    assert {*asked} < {status.export_id for status in ended}
    assert all(status.objects[0].uri.startswith("s3://exports/") for status in ended)
    assert_well(found)
    assert all("Traceback" not in pods.log(name) for name in DEPLOYMENTS)


def assert_well(findings: list[dict[str, Any]]) -> None:
    """All is there and well; the tests' Redis syncs seldom, and the S3 server forgets, of which doctor warns."""
    assert {finding["about"] for finding in findings} >= {"redis", "s3", "connection gio", "workers"}
    assert not [finding for finding in findings if finding["level"] == "error"]
    levels = [finding["level"] for finding in findings if finding["about"] in {"workers", "connection gio"}]
    assert {*levels} == {"ok"}, findings


def test_every_service_leads_to_a_port_that_is_there() -> None:
    for service in of_kind(DEVELOPMENT, "Service").values():
        selector = service["spec"]["selector"].items()
        workloads = [*of_kind(DEVELOPMENT, "Deployment").values(), *of_kind(DEVELOPMENT, "StatefulSet").values()]
        (meant,) = [item for item in workloads if selector <= item["spec"]["template"]["metadata"]["labels"].items()]
        ports = meant["spec"]["template"]["spec"]["containers"][0]["ports"]
        known = {value for item in ports for value in (item["name"], item["containerPort"])}
        for item in service["spec"]["ports"]:
            assert item.get("targetPort", item["port"]) in known
