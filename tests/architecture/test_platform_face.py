"""The names that export-worker hands to authors of drivers: complete, typed, light to import, and sufficient."""

import ast
import asyncio
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tiny_platform import played

from export_worker.platforms import ConnectionSettings, Driver, Pending, Ready, Redactor
from export_worker.platforms.conformance import TOKEN, serve_simulator
from export_worker.simulator.files import content
from support.deployment import blocks, read
from support.paths import ROOT
from support.tiny_platform import PROJECT

FACES = ("export_worker.platforms", "export_worker.simulator")
AUTHORS_MAY_IMPORT = (
    *FACES,
    "export_worker.platforms.conformance",
    "export_worker.contract.kinds",
    "export_worker.errors",
)
"""The modules that packages of others import. All other modules of export-worker can be moved or renamed."""

GUIDE = "worker/PLATFORMS.md"


def imported_modules(source: str) -> Iterator[str]:
    """Yields the modules of export-worker that a source text imports from."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "export_worker":
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "export_worker")


def stub_of(face: str) -> dict[str, str]:
    """Returns the names that a face's stub re-exports: name → module."""
    path = ROOT / "worker" / Path(*face.split(".")) / "__init__.pyi"
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(nodes), "the stub contains only imports"
    aliases = [(alias, node.module or "") for node in imports for alias in node.names]
    assert all(alias.asname == alias.name for alias, _ in aliases), "a stub re-exports only `name as name`"
    return {alias.name: module for alias, module in aliases}


@pytest.mark.parametrize("path", sorted(PROJECT.rglob("*.py")), ids=lambda path: path.name)
def test_package_of_other_author_imports_only_public_modules(path: Path) -> None:
    assert set(imported_modules(path.read_text(encoding="utf-8"))) <= set(AUTHORS_MAY_IMPORT)


def test_guide_imports_only_public_modules() -> None:
    found = {module for block in blocks(GUIDE, "python") for module in imported_modules(block)}
    assert found
    assert found <= set(AUTHORS_MAY_IMPORT)


@pytest.mark.parametrize("source", ["from export_worker.platforms.base import Driver", "import export_worker.redis"])
def test_import_of_private_module_is_detected(source: str) -> None:
    assert not set(imported_modules(source)) <= set(AUTHORS_MAY_IMPORT)


@pytest.mark.parametrize("face", FACES)
def test_every_name_of_face_resolves(face: str) -> None:
    module = import_module(face)
    assert module.__all__
    assert all(getattr(module, name) is not None for name in module.__all__)
    assert dir(module) == sorted(module.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


@pytest.mark.parametrize("face", FACES)
def test_stub_of_face_has_same_names_from_same_modules(face: str) -> None:
    stub, module = stub_of(face), import_module(face)
    assert stub == module._MODULE_OF
    assert all(getattr(module, name) is getattr(import_module(home), name) for name, home in stub.items())


def test_importing_faces_loads_no_other_package() -> None:
    code = f"import sys; before = set(sys.modules); import {', '.join(FACES)}; print(set(sys.modules) - before)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = {name.partition(".")[0] for name in ast.literal_eval(ran.stdout)}
    assert packages - sys.stdlib_module_names == {"export_worker"}


@pytest.mark.parametrize("face", FACES)
def test_guide_lists_every_name_of_face(face: str) -> None:
    listed = set(re.findall(r"`(\w+)`", read(GUIDE)))
    assert [name for name in import_module(face).__all__ if name not in listed] == []


def test_code_of_guide_is_that_of_example_package() -> None:
    # The two last blocks; those before are a recipe and its connection.
    entry_points, pytest_options = map(tomllib.loads, blocks(GUIDE, "toml")[-2:])
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    assert entry_points["project"]["entry-points"] == project["project"]["entry-points"]
    assert pytest_options["tool"]["pytest"] == project["tool"]["pytest"]
    kind, _, conftest, suite = blocks(GUIDE, "python")
    for block, path in (
        (kind, "tiny_platform/kinds.py"),
        (conftest, "tests/conftest.py"),
        (suite, "tests/test_conformance.py"),
    ):
        assert (PROJECT / path).read_text(encoding="utf-8").endswith(f'"""\n\n{block}')


async def test_driver_of_guide_exports_file_of_played_platform() -> None:
    names: dict[str, Any] = {}
    for block in blocks(GUIDE, "python")[:2]:
        exec(compile(block, GUIDE, "exec"), names)
    export = names["TinyListUsers"](list_name="buyers")
    async with serve_simulator(played.register) as simulator:
        simulator.world.scenario = simulator.world.scenario.model_copy(update={"stage_s": 0.01})
        settings = ConnectionSettings.model_validate({"platform": "tiny", "base_url": simulator.url, "token": TOKEN})
        driver: Driver = names["TinyDriver"]("tiny", settings, Redactor())
        submitted = await driver.submit(export)
        while isinstance(polled := await driver.poll(export, submitted.operation_id), Pending):
            await asyncio.sleep(0.01)
        assert isinstance(polled, Ready)
        async with driver.open_result(export, polled.files[0]) as download:
            data = b"".join([chunk async for chunk in download.chunks()])
        await driver.close()
        [job] = simulator.world.jobs
    assert data == b"".join(content(job.files[0].spec))
