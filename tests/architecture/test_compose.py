"""The compose file is valid, its settings load, and its commands run exports to their end."""

import asyncio
import json
import re
import sys
import tomllib
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml  # type: ignore[import-untyped]  # comes with moto; its stubs are not among our tools
from compose_spec import PyCompose

from export_worker.config import Config, load_config
from support.deployment import (
    COMMAND_SERVICES,
    COMPOSE,
    OWN_IMAGE,
    OWN_SERVICES,
    SERVICES,
    blocks,
    check_settings,
    installed,
    parsed,
    read,
)
from support.deployment_processes import GATEWAY_PORT, HEALTH_PORT, S3_PORT, SIMULATOR_PORT, DeploymentProcesses

PROCESSES = {"control", "transfer", "gateway", "trigger"}
SETTINGS = read(COMPOSE["configs"]["export-worker"]["file"])
CONSOLE_KEYS = ("CONSOLE_KEY", "CONSOLE_GUEST_KEY")
"""The variables with the keys for people."""
EXAMPLE_REDIS = '"redis://127.0.0.1:6379/0"'
"""The address in the README's example. The test replaces it."""


def test_compose_file_matches_the_specification() -> None:
    PyCompose.from_json(json.dumps(COMPOSE)).validate()


@pytest.mark.parametrize("wrong", ["read_olny", "depends_onn"])
def test_compose_file_with_unknown_key_is_refused(wrong: str) -> None:
    text = json.dumps(COMPOSE | {"services": SERVICES | {"control": SERVICES["control"] | {wrong: True}}})
    with pytest.raises(ValueError, match=wrong):
        PyCompose.from_json(text)


def test_compose_file_has_every_service_that_an_export_needs() -> None:
    plain = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert plain == {"redis", "s3", "simulator", "requests", *PROCESSES}
    roles = [parsed(SERVICES[role]["command"]).params["role"] for role in ("control", "transfer")]
    assert roles == ["control", "transfer"]


@pytest.mark.parametrize("name", COMMAND_SERVICES)
def test_command_of_service_parses(name: str) -> None:
    assert parsed(SERVICES[name]["command"]).command.name == SERVICES[name]["command"][0]


def test_settings_of_compose_load(clean_environment: pytest.MonkeyPatch) -> None:
    Path("export-worker.toml").write_text(SETTINGS, encoding="utf-8")
    for variable, value in SERVICES["control"]["environment"].items():
        clean_environment.setenv(variable, value)
    config = load_config()
    check_settings(config)
    assert config.platforms() == {"gio": "growingio"}
    assert parsed(SERVICES["trigger"]["command"]).params["name"] in config.triggers


def test_head_of_the_file_says_where_the_console_is_and_how_to_log_in() -> None:
    head = read("docker-compose.yml").partition("\nname:")[0]
    for stated in (
        "http://127.0.0.1:8080/console/",
        *(SERVICES["gateway"]["environment"][key] for key in CONSOLE_KEYS),
    ):
        assert stated in head
    keys = tomllib.loads(SETTINGS)["gateway"]["keys"]
    assert {key["key"] for key in keys.values()} == {f"env:{key}" for key in CONSOLE_KEYS}


def test_every_image_is_pinned_by_digest() -> None:
    foreign = {service["image"] for name, service in SERVICES.items() if name not in OWN_SERVICES}
    for image in foreign:
        assert re.fullmatch(r"[a-z/]+@sha256:[0-9a-f]{64}", image)
    assert {SERVICES[name]["image"] for name in OWN_SERVICES} == {OWN_IMAGE}


@pytest.mark.parametrize("name", OWN_SERVICES)
def test_service_is_read_only_without_capabilities(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", OWN_SERVICES)
def test_configuration_of_service_is_a_file(name: str) -> None:
    """Compose refuses a configuration by `content` where the file system is read-only (docker/compose issue 12031)."""
    for config in SERVICES[name].get("configs", []):
        assert set(COMPOSE["configs"][config["source"]]) == {"file"}


def test_published_ports_are_on_loopback() -> None:
    assert all(port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service.get("ports", []))


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_process_waits_for_its_services_and_has_time_to_drain(name: str) -> None:
    service = SERVICES[name]
    assert int(service["stop_grace_period"].removesuffix("s")) > Config().worker.drain_s
    for needed, how in service["depends_on"].items():
        healthy = how["condition"] == "service_healthy"
        assert healthy == ("healthcheck" in SERVICES[needed]), needed


def test_redis_persists_data_and_evicts_no_key() -> None:
    redis = SERVICES["redis"]
    options = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--maxmemory"].endswith("mb")
    (volume,) = redis["volumes"]
    assert volume.partition(":")[0] in COMPOSE["volumes"]


# The commands of the services, as processes


def program(service: dict[str, Any]) -> list[str]:
    """Returns the command of a service with the programs of this installation."""
    return installed([*service.get("entrypoint", ["export-worker"]), *service["command"]])


class Composed(DeploymentProcesses):
    """The services of the compose file, as processes."""

    async def run(self, name: str) -> asyncio.subprocess.Process:
        """Starts one service."""
        service = SERVICES[name]
        return await self.start(
            name, program(service), self.environment(name, service.get("environment", {}), SETTINGS)
        )

    async def up(self) -> None:
        """Starts all services in the order of their dependencies."""
        await self.wait_until_listening("s3", await self.run("s3"), S3_PORT)
        await self.wait_until_listening("simulator", await self.run("simulator"), SIMULATOR_PORT)
        async with asyncio.timeout(20):
            while not await self.healthy("s3"):
                await asyncio.sleep(0.1)
        for name in ("control", "transfer"):
            await self.wait_until_listening(name, await self.run(name), HEALTH_PORT)
        await self.wait_until_listening("gateway", await self.run("gateway"), GATEWAY_PORT)
        await self.wait_until_listening("trigger", await self.run("trigger"), HEALTH_PORT)

    async def healthy(self, name: str) -> bool:
        """Runs the health check of a service, and returns its result."""
        kind, *arguments = SERVICES[name]["healthcheck"]["test"]
        assert kind == "CMD"
        check = await asyncio.create_subprocess_exec(*self.local(name, installed(arguments)))
        return await check.wait() == 0


@asynccontextmanager
async def composed(directory: Path, redis_url: str, namespace: str) -> AsyncIterator[Composed]:
    """Starts all services, and ends them at the end of the block."""
    async with AsyncExitStack() as stack:
        services = Composed(directory, redis_url, namespace, stack)
        await services.up()
        yield services


async def test_services_of_compose_run_exports_to_their_end(tmp_path: Path, redis_url: str, namespace: str) -> None:
    (code,) = blocks("README.md", "python")
    assert code.count(EXAMPLE_REDIS) == 1
    example = code.replace(EXAMPLE_REDIS, f"{redis_url!r}, namespace={namespace!r}")
    async with composed(tmp_path, redis_url, namespace) as services:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", example, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        printed, _ = await process.communicate()
        assert printed.decode().startswith("succeeded ['s3://exports/growingio.segment_users/dt="), printed
        await services.run("requests")
        async with asyncio.timeout(60):
            while "succeeded s3://exports/" not in services.log("requests"):
                await asyncio.sleep(0.1)
            while "trigger.enqueued" not in services.log("trigger"):
                await asyncio.sleep(0.1)
        listed = await asyncio.to_thread(exports_of, services)
        roles = [await asyncio.to_thread(role_at_the_console, services, key) for key in CONSOLE_KEYS]
        healthy = await asyncio.gather(*map(services.healthy, sorted(PROCESSES)))
        scraped = [await asyncio.to_thread(page_of, services, target) for target in scrape_targets()]

    assert len(listed) >= 2
    assert roles == ["(admin)", "(viewer)"]
    assert healthy == [True] * len(PROCESSES)
    assert len(scraped) == len(PROCESSES)
    assert all("_redis_up 1.0" in page for page in scraped)


def role_at_the_console(services: Composed, key: str) -> str:
    """Logs in to the console with the key of a variable, and returns the role that the overview shows."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    form = urlencode({"key": SERVICES["gateway"]["environment"][key]}).encode()
    with opener.open(f"http://127.0.0.1:{services.gateway}/console/login", form, timeout=20) as page:
        assert page.url.endswith("/console/")
        (role,) = re.findall(r"</bdi> (\(\w+\))", page.read().decode())
    return str(role)


def prometheus_settings() -> Any:
    return yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])


def scrape_targets() -> list[str]:
    (scrape,) = prometheus_settings()["scrape_configs"]
    return [target for each in scrape["static_configs"] for target in each["targets"]]


def page_of(services: Composed, target: str) -> str:
    """Returns the metrics page of one service."""
    name, _, port = target.partition(":")
    with urllib.request.urlopen(f"http://127.0.0.1:{services.addresses(name)[port]}/metrics", timeout=20) as answer:
        return str(answer.read().decode())


def exports_of(services: Composed) -> list[dict[str, Any]]:
    """Returns the exports that the gateway lists."""
    key = SERVICES["gateway"]["environment"]["GATEWAY_KEY"]
    request = urllib.request.Request(
        f"http://127.0.0.1:{services.gateway}/v1/exports", headers={"Authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        found: list[dict[str, Any]] = json.load(answer)["exports"]
    return found
