"""That every module imports by itself, and what comes with those that services import."""

import json
import subprocess
import sys

import pytest

from support.source_modules import PACKAGES, modules, within

IMPORT_EACH = """
import importlib, json, os, sys

def tell(name, to):
    try:
        importlib.import_module(name)
        told = {"modules": sorted({loaded.partition(".")[0] for loaded in sys.modules})}
    except BaseException as error:
        told = {"error": f"{type(error).__name__}: {error}"}
    with os.fdopen(to, "w") as pipe:
        json.dump(told, pipe)
    os._exit(0)

def begin(name):
    here, there = os.pipe()
    if os.fork() == 0:
        os.close(here)
        tell(name, there)
    os.close(there)
    return here

warm, *names = sys.argv[1:]
for name in filter(None, warm.split(",")):
    importlib.import_module(name)
at_once, answers = os.cpu_count() or 1, {}
for first in range(0, len(names), at_once):
    batch = names[first:first + at_once]
    for name, pipe in [(name, begin(name)) for name in batch]:
        with os.fdopen(pipe) as file:
            answers[name] = json.load(file)
        os.wait()
json.dump(answers, sys.stdout)
"""
"""Imports each module in a process of its own, forked from one that has imported nothing of ours."""

LIGHT = ("export_producers", "export_worker.contract", "export_worker.errors", "export_worker.cli")
"""What a service imports beside its own code: of these it matters what else comes with them."""


SERVERS = ("export_producers.gateway",)
"""What runs as a process of its own, and may need more; what the command line takes of it is checked with that."""


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
    names = [name for name in modules() if not name.endswith("__main__")]
    return import_each([name for name in names if is_light(name)], set())


def packages_of_others() -> set[str]:
    everything = {imported.partition(".")[0] for module in modules().values() for imported in module.imports}
    return everything - set(PACKAGES) - sys.stdlib_module_names


def loaded(answer: dict[str, object]) -> set[str]:
    names = answer["modules"]
    assert isinstance(names, list)
    return set(names)


@pytest.mark.timeout(900)  # two hundred processes: on a busy machine they take minutes
def test_every_module_imports_alone(imported_alone: dict[str, dict[str, object]]) -> None:
    heavy = [name for name in modules() if not name.endswith("__main__") and not is_light(name)]
    # Packages of others are imported once, before the fork: they take most of the time and cannot import ours.
    answers = imported_alone | import_each(heavy, packages_of_others())
    assert {name: answer["error"] for name, answer in answers.items() if "error" in answer} == {}


def test_producers_pull_in_nothing_of_the_worker_s(imported_alone: dict[str, dict[str, object]]) -> None:
    heavy = {"boto3", "botocore", "aiohttp", "awscrt", "structlog", "graphql", "moto", "flask"}
    found = {
        name: loaded(answer) & heavy
        for name, answer in imported_alone.items()
        # Triggers are started by a command of their own, and need its extra.
        if within(name, "export_producers") and not within(name, "export_producers.triggers")
    }
    assert len(found) >= 4
    assert set.union(*found.values()) == set()


def test_the_contract_pulls_in_no_client(imported_alone: dict[str, dict[str, object]]) -> None:
    clients = {"redis", "arq", "click", "rich", "pydantic_settings", "boto3", "aiohttp", "structlog"}
    light = {
        name: loaded(answer) & clients
        for name, answer in imported_alone.items()
        if within(name, "export_worker.contract", "export_worker.errors")
    }
    assert len(light) >= 8
    assert set.union(*light.values()) == set()


def test_the_command_line_starts_without_what_only_workers_need(imported_alone: dict[str, dict[str, object]]) -> None:
    assert loaded(imported_alone["export_worker.cli"]) & {"boto3", "aiohttp", "awscrt", "structlog", "graphql"} == set()


def test_a_module_that_does_not_import_is_seen() -> None:
    assert "ModuleNotFoundError" in str(import_each(["export_worker.no_such_module"], set()))
