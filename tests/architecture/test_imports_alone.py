"""Every module can be imported alone, and modules for services import no package that only workers need."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import pytest

from support.source_modules import Module, imported_names, module_of, modules, parsed, within

IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*{loaded.partition(".")[0] for loaded in sys.modules})
"""

WORKER_ONLY = {"boto3", "botocore", "aiohttp", "awscrt", "structlog", "graphql", "moto", "flask"}
"""Large packages that only workers and servers need."""

CLIENTS = WORKER_ONLY | {"redis", "arq", "click", "rich", "pydantic_settings"}
"""What the contract does not import, so that every program can read it."""

CONTRACT = ("export_worker.contract", "export_worker.errors")

SERVERS = ("export_producers.gateway", "export_producers.console", "export_producers.triggers")
"""Packages that run as a separate process and may import more. What the command line imports of them is checked."""


def names(*packages: str) -> list[str]:
    return [name for name in modules() if within(name, *packages) and not name.endswith("__main__")]


def packages_loaded_by(*imported: str) -> set[str]:
    """Imports modules in one new process. A package that none of them loads is loaded by none of them alone."""
    command = [sys.executable, "-W", "error", "-c", IMPORT_ALL, *imported]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def imported_first(module: Module, known: dict[str, Module]) -> Iterator[str]:
    """Yields the modules that Python executes before a module can be used: those that it imports, with their packages.

    The packages that contain the module are executed before it in any case, so they are not among them unless the
    module names them.
    """
    at_the_top = [node for node in module.tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for imported in imported_names(ast.Module(body=[*at_the_top], type_ignores=[])):
        found = module_of(imported, known)
        yield from [found] if found else []
        while found and (found := found.rpartition(".")[0]):
            yield from [found] if found in known and not within(module.name, found) else []


def cycle(known: dict[str, Module]) -> list[str]:
    """Returns modules that import each other, in this order; none if there are none."""
    try:
        TopologicalSorter({module.name: set(imported_first(module, known)) for module in known.values()}).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_every_module_can_be_imported_first() -> None:
    assert cycle(modules()) == []
    packages_loaded_by(*names("export_worker", "export_producers"))


@pytest.mark.parametrize(
    "sources",
    [
        {"p.a": "from p.b import x", "p.b": "import p.a"},
        {"p.a": "import p.b.c", "p.b": "from p.a import x", "p.b.c": ""},
    ],
)
def test_modules_that_import_each_other_are_found(sources: dict[str, str]) -> None:
    some_path = next(iter(modules().values())).path
    assert cycle({name: parsed(name, some_path, source) for name, source in sources.items()})


def test_producers_import_no_package_of_the_worker() -> None:
    light = [name for name in names("export_producers") if not within(name, *SERVERS)]
    assert packages_loaded_by(*light) & WORKER_ONLY == set()


def test_contract_imports_no_client_package() -> None:
    assert packages_loaded_by(*names(*CONTRACT)) & CLIENTS == set()


def test_command_line_imports_no_package_that_only_workers_need() -> None:
    assert packages_loaded_by("export_worker.cli") & WORKER_ONLY == set()


def test_package_that_is_loaded_is_found() -> None:
    assert "boto3" in packages_loaded_by("export_worker.s3.sessions")
