"""The image is what the READMEs say, and holds nothing that it does not need."""

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


def test_what_the_image_copies_exists_and_reaches_the_builder() -> None:
    ignored = read(".dockerignore").splitlines()
    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied())
    assert [source for source in copied() if not (ROOT / source).exists()] == []


def test_the_image_copies_all_that_the_build_reads() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    named = {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert set(copied()) == {"pyproject.toml", "worker/requirements.lock", *packages, *named}


def test_the_image_runs_the_command_as_nobody_special() -> None:
    assert instructions("ENTRYPOINT") == [["[export-worker]"]]
    assert instructions("CMD") == [["[run]"]]
    assert parsed(["run"]).params["role"] == "all"
    (user,) = instructions("USER")[-1]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)


@pytest.mark.parametrize(("status", "healthy"), [(None, True), (200, True), (503, False)])
async def test_the_image_asks_whether_it_is_well(status: int | None, healthy: bool) -> None:
    ((*_, command, python, flag, code),) = instructions("HEALTHCHECK")
    assert (command, python, flag) == ("CMD", "python", "-c")
    async with ScriptedServer() as server:
        server.on("/readyz", replied(status=status or 500))
        url = f"{server.url}/readyz" if status else ""
        asked = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code), env={"HEALTH_URL": url}, stderr=asyncio.subprocess.DEVNULL
        )
        assert (await asked.wait() == 0) == healthy


def test_its_base_is_pinned_and_its_own_tag_is_the_version() -> None:
    ((base,),) = instructions("ARG")
    # A tag without patch and suite becomes another system one day; a digest stays, and the tag tells people what it is.
    assert re.fullmatch(r"PYTHON=python:3\.\d+\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}", base)
    assert {arguments[0] for arguments in instructions("FROM")} == {"${PYTHON}"}, "built and run on the same"
    assert f"--tag {OWN_IMAGE} " in read("worker/Dockerfile")


def locked(path: str) -> dict[str, str]:
    """Versions by name."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", read(path), re.MULTILINE))


def test_the_image_gets_versions_that_the_tests_ran_with() -> None:
    image, everything = locked("worker/requirements.lock"), locked("requirements.lock")
    assert image.items() <= everything.items()
    wanted = [Requirement(line) for line in metadata.requires("export-worker") or []]
    needed = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": "all"})]
    assert {canonicalize_name(each.name) for each in needed} <= image.keys()


def test_what_builds_the_package_is_pinned() -> None:
    assert all(re.fullmatch(r"[a-z]+==[\d.]+", needed) for needed in PROJECT["build-system"]["requires"])
