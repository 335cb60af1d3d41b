"""Every module can be imported alone, and modules for services import no package that only workers need."""

import json
import subprocess
import sys

import pytest

from support.source_modules import PACKAGES, modules, within

IMPORT_EACH = """
import gc, importlib, json, os, sys

def report(name, to):
    try:
        importlib.import_module(name)
        result = {"modules": sorted({loaded.partition(".")[0] for loaded in sys.modules})}
    except BaseException as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    with os.fdopen(to, "w") as pipe:
        json.dump(result, pipe)
    os._exit(0)

def begin(name):
    here, there = os.pipe()
    if os.fork() == 0:
        os.close(here)
        report(name, there)
    os.close(there)
    return here

warm, *names = sys.argv[1:]
for name in filter(None, warm.split(",")):
    importlib.import_module(name)
gc.disable()  # a collection in a fork examines, and so copies, the memory of all packages
at_once, answers = os.cpu_count() or 1, {}
for first in range(0, len(names), at_once):
    batch = names[first:first + at_once]
    for name, pipe in [(name, begin(name)) for name in batch]:
        with os.fdopen(pipe) as file:
            answers[name] = json.load(file)
        os.wait()
json.dump(answers, sys.stdout)
"""
"""Imports each module in a separate process, forked from one that has imported no module of this project."""

LIGHT = ("export_producers", "export_worker.contract", "export_worker.errors", "export_worker.cli")
"""Modules that services import beside their own code: they must not import large packages."""

WORKER_ONLY = {"boto3", "botocore", "aiohttp", "awscrt", "structlog", "graphql", "moto", "flask"}
"""Large packages that only workers and servers need."""

CLIENTS = WORKER_ONLY | {"redis", "arq", "click", "rich", "pydantic_settings"}
"""What the contract does not import, so that every program can read it."""

CONTRACT = ("export_worker.contract", "export_worker.errors")

SERVERS = ("export_producers.gateway", "export_producers.console", "export_producers.triggers")
"""Packages that run as a separate process and may import more. What the command line imports of them is checked."""


def is_light(name: str) -> bool:
    return within(name, *LIGHT) and not within(name, *SERVERS)


def import_each(names: list[str], warm: set[str]) -> dict[str, dict[str, object]]:
    command = [sys.executable, "-W", "error", "-c", IMPORT_EACH, ",".join(sorted(warm)), *names]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    answers: dict[str, dict[str, object]] = json.loads(done.stdout)
    assert list(answers) == names
    return answers


@pytest.fixture(scope="module")
def imported_alone() -> dict[str, dict[str, object]]:
    light = [name for name in modules() if not name.endswith("__main__") and is_light(name)]
    contract = [name for name in light if within(name, *CONTRACT)]
    others = [name for name in light if name not in contract]
    return import_after_packages(contract, CLIENTS) | import_after_packages(others, WORKER_ONLY)


def import_after_packages(names: list[str], never: set[str]) -> dict[str, dict[str, object]]:
    """Imports each module alone, after the third-party packages that these modules may import.

    Third-party packages are imported once, before the fork: they take most of the time, and cannot import ours. If one
    of them imports a package of `never`, every module is found to have imported that.
    """
    imported = {imported.partition(".")[0] for name in names for imported in modules()[name].imports}
    return import_each(names, imported - never - set(PACKAGES) - sys.stdlib_module_names)


def loaded(answer: dict[str, object]) -> set[str]:
    names = answer["modules"]
    assert isinstance(names, list)
    return set(names)


@pytest.mark.timeout(900)  # two hundred processes take minutes on a busy machine
def test_every_module_imports_alone(imported_alone: dict[str, dict[str, object]]) -> None:
    heavy = [name for name in modules() if not name.endswith("__main__") and not is_light(name)]
    answers = imported_alone | import_after_packages(heavy, set())
    assert {name: answer["error"] for name, answer in answers.items() if "error" in answer} == {}


def test_producers_import_no_package_of_the_worker(imported_alone: dict[str, dict[str, object]]) -> None:
    found = {
        name: loaded(answer) & WORKER_ONLY
        for name, answer in imported_alone.items()
        if within(name, "export_producers")
    }
    assert len(found) >= 4
    assert set.union(*found.values()) == set()


def test_contract_imports_no_client_package(imported_alone: dict[str, dict[str, object]]) -> None:
    light = {name: loaded(answer) & CLIENTS for name, answer in imported_alone.items() if within(name, *CONTRACT)}
    assert len(light) >= 8
    assert set.union(*light.values()) == set()


def test_command_line_imports_no_package_that_only_workers_need(imported_alone: dict[str, dict[str, object]]) -> None:
    assert loaded(imported_alone["export_worker.cli"]) & WORKER_ONLY == set()


def test_module_that_cannot_be_imported_is_reported() -> None:
    assert "ModuleNotFoundError" in str(import_each(["export_worker.no_such_module"], set()))
