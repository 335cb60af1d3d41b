"""What is written beside the code is true: image, compose file, Kubernetes base, and the examples of the READMEs."""

import asyncio
import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import click
import pytest
import yaml  # type: ignore[import-untyped]  # comes with moto; its stubs are not among our tools

from export_producers import ExportQueue
from export_producers.gateway import openapi
from export_worker.cli import cli
from export_worker.config import Config, load_config
from export_worker.contract.event import Event
from export_worker.contract.status import Phase, Status
from export_worker.contract.validate import parse_request
from export_worker.credentials import Redactor
from export_worker.demo.processes import EXPORT_WORKER, child, free_port, listening, plain_environment
from export_worker.platforms.registry import build_driver, installed_platforms

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "producers/README.md", "worker/README.md", "k8s/README.md", "CHANGELOG.md")
EXAMPLE_REDIS = '"redis://127.0.0.1:6379/0"'
"""The address in the README's example; a test puts its own there."""


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(path: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", read(path), re.DOTALL | re.MULTILINE)


PROJECT = tomllib.loads(read("pyproject.toml"))
COMPOSE = yaml.safe_load(read("docker-compose.yml"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN_SERVICES = sorted(name for name, service in SERVICES.items() if "build" in service)
COMMAND_SERVICES = sorted(name for name in OWN_SERVICES if "entrypoint" not in SERVICES[name])
OWN_IMAGE = f"export-worker:{PROJECT['project']['version']}"
KUSTOMIZATION = yaml.safe_load(read("k8s/kustomization.yaml"))
MANIFESTS: list[dict[str, Any]] = [yaml.safe_load(read(f"k8s/{name}")) for name in KUSTOMIZATION["resources"]]
PODS: dict[str, dict[str, Any]] = {
    item["metadata"]["name"]: item["spec"]["template"]["spec"] for item in MANIFESTS if item["kind"] == "Deployment"
}
CONTAINERS = {name: pod["containers"][0] for name, pod in PODS.items()}


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No setting from outside: neither a variable nor a file in the working directory."""
    for name in [name for name in os.environ if name.startswith("EXPORT_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def parsed(arguments: list[str]) -> click.Context:
    """The command line as click understands it, without running anything."""
    group = cli.make_context("export-worker", list(arguments))
    name, command, rest = cli.resolve_command(group, list(arguments))
    assert command is not None
    return command.make_context(name, rest, parent=group)


def check_settings(config: Config, environment: dict[str, str]) -> None:
    """Every EXPORT_ variable has arrived in a setting, and every connection is what its driver expects."""
    for name in environment:
        if name.startswith("EXPORT_") and name != "EXPORT_CONFIG":
            found: Any = config.model_dump()
            for part in name.removeprefix("EXPORT_").lower().split("__"):
                assert part in found, f"{name} is no setting"
                found = found[part]
    for name, settings in config.connections.items():
        build_driver(name, settings, Redactor())


# --- the image ---------------------------------------------------------------------------------------------------


def instructions(name: str) -> list[list[str]]:
    """The arguments of one kind of instruction in the Dockerfile."""
    lines = read("worker/Dockerfile").replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"{name} ")]


def copied() -> list[str]:
    return [source for copy in instructions("COPY") if not copy[0].startswith("--from") for source in copy[:-1]]


def test_what_the_image_copies_exists_and_reaches_the_builder() -> None:
    ignored = read(".dockerignore").splitlines()
    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied())
    assert [source for source in copied() if not (ROOT / source).exists()] == []


def test_the_image_copies_all_that_the_build_reads() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = ["pyproject.toml", "requirements.lock", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]
    assert set(copied()) == {*packages, *files}


def test_the_image_runs_the_command_as_nobody_special() -> None:
    assert instructions("ENTRYPOINT") == [["[export-worker]"]]
    assert instructions("CMD") == [["[run]"]]
    assert parsed(["run"]).params["role"] == "all"
    (user,) = instructions("USER")[-1]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    for pod in PODS.values():
        assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == user


# --- images in general -------------------------------------------------------------------------------------------


def test_every_image_is_pinned() -> None:
    bases = [arguments[0] for arguments in instructions("FROM")]
    images = [*bases, *(service["image"] for service in SERVICES.values()), *(c["image"] for c in CONTAINERS.values())]
    images += [f"{image['newName']}:{image['newTag']}" for image in KUSTOMIZATION["images"]]
    for image in images:
        _, _, tag = image.rpartition("/")[2].partition(":")
        assert re.match(r"\d+\.\d+", tag), f"{image} names no version"


def test_our_own_image_has_one_tag_everywhere() -> None:
    assert {SERVICES[name]["image"] for name in OWN_SERVICES} == {OWN_IMAGE}
    assert {container["image"] for container in CONTAINERS.values()} == {OWN_IMAGE}
    assert {image["name"]: str(image["newTag"]) for image in KUSTOMIZATION["images"]} == dict([OWN_IMAGE.split(":")])
    assert f"--tag {OWN_IMAGE} " in read("worker/Dockerfile")


# --- docker-compose.yml ------------------------------------------------------------------------------------------


def test_compose_has_everything_that_an_export_needs() -> None:
    assert set(SERVICES) == {"redis", "s3", "bucket", "simulator", "control", "transfer"}
    assert [parsed(SERVICES[role]["command"]).params["role"] for role in ("control", "transfer")] == [
        "control",
        "transfer",
    ]


@pytest.mark.parametrize("name", COMMAND_SERVICES)
def test_compose_commands_are_real(name: str) -> None:
    assert parsed(SERVICES[name]["command"]).command.name == SERVICES[name]["command"][0]


@pytest.mark.parametrize("name", [name for name in OWN_SERVICES if "environment" in SERVICES[name]])
def test_compose_settings_are_understood(name: str, clean_environment: pytest.MonkeyPatch) -> None:
    environment = SERVICES[name]["environment"]
    for variable, value in environment.items():
        assert isinstance(value, str), f"{variable} is a string only by luck"
        clean_environment.setenv(variable, value)
    config = load_config()
    check_settings(config, environment)
    assert config.platforms() == {"gio": "growingio"}


@pytest.mark.parametrize("name", OWN_SERVICES)
def test_compose_services_can_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_compose_workers_wait_for_what_they_need_and_may_drain() -> None:
    for role in ("control", "transfer"):
        service = SERVICES[role]
        assert int(service["stop_grace_period"].removesuffix("s")) > Config().worker.drain_s
        for needed, how in service["depends_on"].items():
            healthy = how["condition"] == "service_healthy"
            assert healthy == ("healthcheck" in SERVICES[needed]), needed


def test_compose_redis_keeps_what_it_is_given() -> None:
    redis = SERVICES["redis"]
    options = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    (volume,) = redis["volumes"]
    assert volume.partition(":")[0] in COMPOSE["volumes"]


# --- k8s ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def config_map() -> Path:
    """The file that becomes the ConfigMap."""
    (generator,) = KUSTOMIZATION["configMapGenerator"]
    (file,) = generator["files"]
    return ROOT / "k8s" / str(file)


def test_k8s_lists_every_manifest_and_carries_no_secret() -> None:
    manifests = {path.name for path in (ROOT / "k8s").glob("*.yaml")}
    assert manifests == {"kustomization.yaml", *KUSTOMIZATION["resources"]}
    names = {(item["kind"], item["metadata"]["name"]) for item in MANIFESTS}
    assert names == {("Namespace", KUSTOMIZATION["namespace"]), ("Deployment", "control"), ("Deployment", "transfer")}


@pytest.mark.parametrize("name", PODS)
def test_k8s_commands_are_real(name: str) -> None:
    assert "command" not in CONTAINERS[name]
    assert parsed(CONTAINERS[name]["args"]).params["role"] == name


@pytest.mark.parametrize("name", PODS)
def test_k8s_settings_are_understood(name: str, config_map: Path, clean_environment: pytest.MonkeyPatch) -> None:
    variables = {item["name"]: item.get("value") for item in CONTAINERS[name]["env"]}
    assert load_config(str(config_map)).platforms() == {"gio": "growingio"}
    for variable, value in variables.items():
        # What comes from the Secret is known to the cluster alone.
        clean_environment.setenv(variable, value or "redis://:secret@redis.example.internal:6379/0")
    check_settings(load_config(str(config_map)), dict.fromkeys(variables, ""))


@pytest.mark.parametrize("name", PODS)
def test_k8s_pods_get_the_file_and_every_secret(name: str, config_map: Path) -> None:
    container, pod = CONTAINERS[name], PODS[name]
    place = Path(next(item["value"] for item in container["env"] if item["name"] == "EXPORT_CONFIG"))
    mounted = {item["mountPath"]: item["name"] for item in container["volumeMounts"]}
    volume = next(item for item in pod["volumes"] if item["name"] == mounted[str(place.parent)])
    assert place.name == config_map.name
    assert volume["configMap"]["name"] == KUSTOMIZATION["configMapGenerator"][0]["name"]
    assert instructions("WORKDIR")[-1] == [str(place.parent)]
    wanted = {value.get_secret_value().removeprefix("env:") for _, value in load_config(str(config_map)).secrets()}
    sources = {item["name"]: item["valueFrom"]["secretKeyRef"] for item in container["env"] if "valueFrom" in item}
    assert {variable for variable, source in sources.items() if not source.get("optional")} == wanted
    for source in sources.values():
        assert f"generic {source['name']} " in read("k8s/README.md")
        assert f"--from-file={source['key']}=" in read("k8s/README.md")


@pytest.mark.parametrize("name", PODS)
def test_k8s_pods_are_restricted(name: str) -> None:
    pod, container = PODS[name], CONTAINERS[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("name", PODS)
def test_k8s_pods_have_room_and_time(name: str, config_map: Path) -> None:
    config, resources = load_config(str(config_map)), CONTAINERS[name]["resources"]
    assert PODS[name]["terminationGracePeriodSeconds"] > config.worker.drain_s
    assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory"}
    buffers_mib = config.transfer.memory_mib if name == "transfer" else 0
    # An idle worker has 100 MiB (measured).
    assert int(resources["limits"]["memory"].removesuffix("Mi")) >= 1.5 * (100 + buffers_mib)


# --- what the READMEs say ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", READMES)
def test_links_lead_somewhere(path: str) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", read(path)):
        assert (ROOT / path).parent.joinpath(target).exists(), target


def test_the_table_of_commands_is_complete() -> None:
    section = read("README.md").split("## Commands")[1].split("\n## ")[0]
    rows = [row for row in re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE) if row[0].isalpha()]
    context = click.Context(cli)
    assert sorted(row.split()[0] for row in rows) == cli.list_commands(context)
    for row in rows:
        command = cli.get_command(context, row.split()[0])
        assert command is not None
        parts = [command, *(command.commands.values() if isinstance(command, click.Group) else ())]
        parameters = [parameter for part in parts for parameter in part.params]
        known = {name for parameter in parameters for name in parameter.opts if name.startswith("--")}
        assert set(re.findall(r"--[a-z-]+", row)) == known, row


def test_the_configuration_of_the_readme_is_one(clean_environment: pytest.MonkeyPatch) -> None:
    (example,) = blocks("README.md", "toml")
    Path("export-worker.toml").write_text(example, encoding="utf-8")
    clean_environment.setenv("GIO_TOKEN", "some-token")
    check_settings(load_config(), {})


def test_the_documents_of_the_readme_are_what_they_say() -> None:
    request, event = blocks("README.md", "json")
    assert parse_request(request).connection == "gio"
    shown = json.loads(event)
    assert set(shown) == set(Event.model_fields) - {"traceparent"}, "only a request with a trace has an event with one"
    assert set(shown["data"]) < set(Status.model_fields)
    assert f"`{shown['type']}`" in read("README.md")


def test_what_the_readme_says_is_to_come_is_not_there_yet() -> None:
    _, _, coming = read("README.md").partition("Next, not there yet:")
    names = set(re.findall(r"`([a-z-]+)`", coming.partition("\n## ")[0]))
    assert names.isdisjoint({*cli.list_commands(click.Context(cli)), *installed_platforms()})


def program(service: dict[str, Any]) -> list[str]:
    """What a service runs, with this installation in place of the image."""
    entrypoint = service.get("entrypoint", ["export-worker"])
    own = {"export-worker": [*EXPORT_WORKER], "python": [sys.executable]}
    return [*own[entrypoint[0]], *entrypoint[1:], *service["command"]]


@asynccontextmanager
async def composed(directory: Path, redis_url: str, namespace: str) -> AsyncIterator[None]:
    """The services of the compose file as processes: the same commands and settings, other ports."""
    s3_port, simulator_port = str(free_port()), str(free_port())
    places = {"redis://redis:6379/0": redis_url, "http://s3:9000": f"http://127.0.0.1:{s3_port}", "9000": s3_port}
    places |= {"http://simulator:8099": f"http://127.0.0.1:{simulator_port}", "8099": simulator_port}
    places |= {"0.0.0.0": "127.0.0.1"}
    async with AsyncExitStack() as stack:

        async def start(name: str) -> asyncio.subprocess.Process:
            told = {key: places.get(value, value) for key, value in SERVICES[name].get("environment", {}).items()}
            env = plain_environment() | told | {"EXPORT_NAMESPACE": namespace}
            command = [places.get(word, word) for word in program(SERVICES[name])]
            return await stack.enter_async_context(child(command, name=name, directory=directory, env=env))

        await listening(await start("s3"), int(s3_port), name="s3", directory=directory)
        await listening(await start("simulator"), int(simulator_port), name="simulator", directory=directory)
        assert await (await start("bucket")).wait() == 0, (directory / "bucket.log").read_text(encoding="utf-8")
        for role in ("control", "transfer"):
            await start(role)
        yield


def example(redis_url: str, namespace: str) -> str:
    """The README's example, at a test's own Redis."""
    (code,) = blocks("README.md", "python")
    assert code.count(EXAMPLE_REDIS) == 1
    return code.replace(EXAMPLE_REDIS, f"{redis_url!r}, namespace={namespace!r}")


async def test_the_example_of_the_readme_works_with_the_services_of_the_compose_file(
    outputs: Path, redis_url: str, namespace: str
) -> None:
    async with composed(outputs, redis_url, namespace):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", example(redis_url, namespace), stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await process.communicate()
    assert process.returncode == 0
    assert printed.decode().startswith("succeeded ['s3://exports/growingio.segment_users/dt=")


async def test_the_code_of_the_producers_readme_works(redis_url: str, namespace: str) -> None:
    code = "\n".join(blocks("producers/README.md", "python"))
    names: dict[str, Any] = {}
    exec(compile(code, "producers/README.md", "exec"), names)
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        first, second = await names["ask"](queue), await names["ask"](queue)
    assert (first.deduplicated, second.deduplicated) == (False, True)
    assert first.export_id == second.export_id
    in_memory = names["queue"]
    assert (await in_memory.wait((await names["ask"](in_memory)).export_id)).phase is Phase.SUCCEEDED


def test_the_calls_of_the_producers_readme_are_those_of_the_api() -> None:
    told = set(re.findall(r"`(?:GET|POST) (/[^`?]*)", read("producers/README.md")))
    paths = {path.replace("{export_id}", "{id}") for path in openapi.document()["paths"]}
    assert {path for path in paths if path.startswith("/v1/")} <= told
