"""The house of the design: who may import whom, how large things are, and that every module stands alone."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from support.paths import ROOT

PACKAGES = {"export_worker": ROOT / "worker", "export_producers": ROOT / "producers"}

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "egress", "step_context", "simulator"),
    ("contract", "credentials"),
    ("lifecycle", "telemetry"),
    ("redis", "s3"),
    ("platforms", "sinks"),
    ("transfer", "config"),
    ("worker",),
    ("wiring",),
    ("doctor",),
    ("commands", "demo", "cli"),
    ("__main__",),
)
"""The rooms of `export_worker`, from the ground up. A room imports only rooms on floors strictly below its own: not one
of its own floor, and not one above, types included."""
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}

PLATFORM_FLOORS: tuple[tuple[str, ...], ...] = (
    ("settings", "operations"),
    ("base", "arguments"),
    ("http",),
    ("growingio", "growingio_rest", "thinkingdata", "sensorsdata", "registry", "conformance"),
)
"""The same within `platforms`: a driver imports the toolkit, and no other driver."""
PLATFORM_FLOOR_OF = {name: floor for floor, names in enumerate(PLATFORM_FLOORS) for name in names}

PRODUCERS_MAY_IMPORT = (
    "export_producers",
    "export_worker.contract",
    "export_worker.errors",
    "export_worker.redis.client",
    "export_worker.redis.clock",
    "export_worker.redis.cancellation",
    "export_worker.redis.scripts",
)
PRODUCERS_ARE_KNOWN_FROM = FLOOR_OF["wiring"]
"""Rooms from here on up may start what producers offer: the gateway, triggers, commands."""
CONTRACT_MAY_IMPORT = {"pydantic", "pydantic_core", "export_worker"}

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50


@dataclass(frozen=True)
class Module:
    """One source file.

    Args:
        name: Dotted; a package goes by its own name, without `__init__`.
        imports: Dotted names as the source has them, `from a import b` as `a.b`. Those within functions, too.
    """

    name: str
    path: Path
    tree: ast.Module
    imports: tuple[str, ...]


def imported_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + f"{node.module or ''}.{alias.name}" for alias in node.names)


def parsed(name: str, path: Path, source: str) -> Module:
    tree = ast.parse(source, str(path))
    return Module(name, path, tree, tuple(imported_names(tree)))


@cache
def modules() -> dict[str, Module]:
    found = {}
    for package, home in PACKAGES.items():
        for path in sorted((home / package).rglob("*.py")):
            parts = path.relative_to(home).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = parsed(name, path, path.read_text(encoding="utf-8"))
    return found


def module_of(imported: str, known: dict[str, Module]) -> str | None:
    """The module of ours that an imported name stands for: itself, or where it is defined."""
    while imported and imported not in known:
        imported = imported.rpartition(".")[0]
    return imported or None


def our_imports(module: Module, known: dict[str, Module]) -> set[str]:
    found = (module_of(imported, known) for imported in module.imports)
    return {name for name in found if name is not None}


def room_of(name: str) -> str:
    """The room of a module of the worker; empty for the root package, which imports nothing and belongs to all."""
    _, _, inner = name.partition(".")
    return inner.partition(".")[0]


def wrong_imports(known: dict[str, Module]) -> list[str]:
    """Every import that the rooms do not allow."""
    return [
        f"{module.name} imports {imported}"
        for module in known.values()
        for imported in sorted(our_imports(module, known))
        if not is_allowed(module.name, imported)
    ]


def is_allowed(importer: str, imported: str) -> bool:
    if within(importer, "export_producers"):
        return within(imported, *PRODUCERS_MAY_IMPORT)
    here = room_of(importer)
    if within(imported, "export_producers"):
        return FLOOR_OF[here] >= PRODUCERS_ARE_KNOWN_FROM
    there = room_of(imported)
    if not there:
        return True
    if here == there == "platforms":
        return is_allowed_among_platforms(importer, imported)
    return here == there or FLOOR_OF[there] < FLOOR_OF[here]


def is_allowed_among_platforms(importer: str, imported: str) -> bool:
    here, there = (
        name.removeprefix("export_worker.platforms").lstrip(".").partition(".")[0] for name in (importer, imported)
    )
    if not here or not there:
        return True  # the face of the package hands on what authors of drivers need
    return here == there or PLATFORM_FLOOR_OF[there] < PLATFORM_FLOOR_OF[here]


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def cycle(known: dict[str, Module]) -> list[str]:
    """The modules of one cycle, or none."""
    graph = {module.name: our_imports(module, known) - {module.name} for module in known.values()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_every_module_has_a_floor() -> None:
    assert {room_of(name) for name in modules() if within(name, "export_worker")} - {""} == set(FLOOR_OF)
    assert len(modules()) > 50, "the sources were not found"


def test_no_import_leads_where_it_must_not() -> None:
    assert wrong_imports(modules()) == []


def test_no_cycle() -> None:
    assert cycle(modules()) == []


def test_no_imports_for_types_only_and_no_relative_ones() -> None:
    offenders = [
        module.name
        for module in modules().values()
        if "typing.TYPE_CHECKING" in module.imports
        or any(isinstance(node, ast.Attribute) and node.attr == "TYPE_CHECKING" for node in ast.walk(module.tree))
        or any(imported.startswith(".") for imported in module.imports)
    ]
    assert offenders == []


def test_the_root_package_imports_nothing() -> None:
    assert modules()["export_worker"].imports == ()


def test_the_contract_needs_pydantic_alone() -> None:
    needed = {
        imported.partition(".")[0]
        for module in modules().values()
        if within(module.name, "export_worker.contract", "export_worker.errors")
        for imported in module.imports
    }
    assert needed - CONTRACT_MAY_IMPORT - sys.stdlib_module_names == set()


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("export_worker.backoff", "from export_worker.store import Store"),
        ("export_worker.backoff", "from export_worker import store"),
        ("export_worker.backoff", "import export_worker.store as s"),
        ("export_worker.backoff", "def f():\n    import export_worker.store"),
        ("export_worker.backoff", "if TYPE_CHECKING:\n    from export_worker.store import Store"),
        ("export_worker.errors", "import export_worker.backoff"),
        ("export_worker.pollplan", "from export_worker.store import DURATIONS_MAX"),
        ("export_worker.sweep", "from export_worker.leases import Leases"),
        ("export_worker.leases", "from export_worker.cli import main"),
        ("export_worker.runtime", "from export_worker.cli import main"),
        ("export_worker.runtime", "from export_producers import ExportQueue"),
        ("export_worker.simulator.app", "from export_worker.transfer.plan import part_size"),
        ("export_worker.simulator.app", "import export_worker.platforms"),
        ("export_producers.client", "from export_worker.store import Store"),
        ("export_producers.client", "import export_worker.config"),
        ("export_producers.actions", "from export_worker.lua import script"),
        ("export_producers.explain", "from export_worker.steps import deadline"),
        ("export_producers.lua", "from export_worker.lua import script"),
    ],
)
def test_a_wrong_import_is_seen(importer: str, source: str) -> None:
    known = modules() | {importer: parsed(importer, Path("x.py"), source)}
    assert len(wrong_imports(known)) == 1


def test_a_cycle_is_seen_also_within_functions() -> None:
    source = "def f():\n    from export_worker import pollplan"
    assert set(cycle(modules() | {"export_worker.backoff": parsed("export_worker.backoff", Path("x.py"), source)})) == {
        "export_worker.backoff",
        "export_worker.pollplan",
    }


def test_no_file_is_too_long() -> None:
    lines = {module.name: len(module.path.read_text(encoding="utf-8").splitlines()) for module in modules().values()}
    assert {name: count for name, count in lines.items() if count > FILE_LINES_MAX} == {}


def function_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    return _lines(function) - (_lines(first) if documented else 0)


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_function_is_too_long() -> None:
    lines = {
        f"{module.name}:{node.name}": function_lines(node)
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: count for name, count in lines.items() if count > FUNCTION_LINES_MAX} == {}


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
