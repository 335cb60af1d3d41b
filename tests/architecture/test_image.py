"""The image: what it copies, how it starts, its health check, and the versions in it."""

import asyncio
import re
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.deployment import OWN_IMAGE, PROJECT, instructions, parsed, read
from support.paths import ROOT
from support.scripted_server import ScriptedServer, replied


def copied() -> list[str]:
    return [source for copy in instructions("COPY") if not copy[0].startswith("--from") for source in copy[:-1]]


def test_dockerignore_admits_exactly_what_the_image_copies() -> None:
    ignored = read(".dockerignore").splitlines()
    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied())
    assert [source for source in copied() if not (ROOT / source).exists()] == []


def test_image_copies_every_file_that_the_build_reads() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    named = {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert set(copied()) == {"pyproject.toml", "worker/requirements.lock", "worker/build.lock", *packages, *named}


def test_image_runs_the_command_as_unprivileged_user() -> None:
    assert instructions("ENTRYPOINT") == [["[export-worker]"]]
    assert instructions("CMD") == [["[run]"]]
    assert parsed(["run"]).params["role"] == "all"
    (user,) = instructions("USER")[-1]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)


@pytest.mark.parametrize(("status", "healthy"), [(None, True), (200, True), (503, False)])
async def test_health_check_of_image_follows_readyz(status: int | None, healthy: bool) -> None:
    ((*_, command, python, flag, code),) = instructions("HEALTHCHECK")
    assert (command, python, flag) == ("CMD", "python", "-c")
    async with ScriptedServer() as server:
        server.on("/readyz", replied(status=status or 500))
        url = f"{server.url}/readyz" if status else ""
        check = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code), env={"HEALTH_URL": url}, stderr=asyncio.subprocess.DEVNULL
        )
        assert (await check.wait() == 0) == healthy


def test_base_image_is_pinned_and_tag_is_the_version() -> None:
    ((base,),) = instructions("ARG")
    # The digest identifies the image. The tag, with patch version and Debian suite, shows readers which image it is.
    assert re.fullmatch(r"PYTHON=python:3\.\d+\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}", base)
    assert {arguments[0] for arguments in instructions("FROM")} == {"${PYTHON}"}, "the stages use different base images"
    assert f"--tag {OWN_IMAGE} " in read("worker/Dockerfile")


def locked(path: str) -> dict[str, str]:
    """Returns the locked versions by package."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", read(path), re.MULTILINE))


def test_image_installs_the_versions_that_tests_use() -> None:
    image, everything = locked("worker/requirements.lock"), locked("requirements.lock")
    assert image.items() <= everything.items()
    wanted = [Requirement(line) for line in metadata.requires("export-worker") or []]
    needed = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": "all"})]
    assert {canonicalize_name(each.name) for each in needed} <= image.keys()


def test_image_takes_nothing_from_an_index_without_a_hash() -> None:
    commands = [command for words in instructions("RUN") for command in " ".join(words).split(" && ")]
    installing = [command for command in commands if re.search(r"\bpip\b", command)]
    assert len(installing) == 4
    # Without isolation, pip takes the build requirements from the environment, and not from the index.
    assert [command for command in installing if not re.search(r"--require-hashes|--no-index", command)] == []
    assert all("--no-build-isolation" in command for command in installing if " wheel " in command)


def test_build_requirements_have_hashes() -> None:
    text = read("worker/build.lock")
    needed = [Requirement(line) for line in PROJECT["build-system"]["requires"]]
    assert {(each.name, str(each.specifier)) for each in needed} <= {
        (name, f"=={version}") for name, version in locked("worker/build.lock").items()
    }
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=\w)", text))


def test_build_requirements_are_pinned() -> None:
    assert all(re.fullmatch(r"[a-z]+==[\d.]+", needed) for needed in PROJECT["build-system"]["requires"])
