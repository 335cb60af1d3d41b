"""Which room may import which: the floors of the house."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from support.source_modules import Module, modules, our_imports, parsed, within

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "step_context", "simulator", "texts"),
    ("contract", "references"),
    ("credentials",),
    ("lifecycle", "telemetry", "egress", "schedules"),
    ("recipes", "secrets"),
    ("redis", "s3"),
    ("platforms", "sinks"),
    ("transfer", "config"),
    ("archive", "worker"),
    ("batches",),
    ("wiring",),
    ("doctor", "schemas"),
    ("commands", "demo"),
    ("cli",),
    ("__main__",),
)
"""The rooms of `export_worker`, from the ground up. A room imports only rooms on floors strictly below its own: not one
of its own floor, and not one above, types included."""
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}

PLATFORM_FLOORS: tuple[tuple[str, ...], ...] = (
    ("settings", "operations", "base"),
    ("http", "arguments", "registry"),
    ("growingio", "growingio_rest", "recipe", "sensorsdata", "thinkingdata", "conformance"),
    ("recipe_check",),
)
"""The same within `platforms`: a driver imports the toolkit, and no other driver."""
PLATFORM_FLOOR_OF = {name: floor for floor, names in enumerate(PLATFORM_FLOORS) for name in names}

PRODUCERS_MAY_IMPORT = (
    "export_producers",
    "export_worker.contract",
    "export_worker.errors",
    "export_worker.recipes",
    "export_worker.redis.client",
    "export_worker.redis.clock",
    "export_worker.redis.cancellation",
    "export_worker.redis.scripts",
    "export_worker.redis.replay",
    "export_worker.redis.records",
)
PRODUCERS_ARE_KNOWN_FROM = FLOOR_OF["wiring"]
"""Rooms from here on up may start what producers offer: the gateway, triggers, commands."""
CONTRACT_MAY_IMPORT = {"pydantic", "pydantic_core", "export_worker"}


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
    here, there = platform_room_of(importer), platform_room_of(imported)
    if not here or not there:
        return True  # the face of the package hands on what authors of drivers need
    return here == there or PLATFORM_FLOOR_OF[there] < PLATFORM_FLOOR_OF[here]


def platform_room_of(name: str) -> str:
    return name.removeprefix("export_worker.platforms").lstrip(".").partition(".")[0]


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
        # upward
        ("export_worker.lifecycle.backoff", "from export_worker.redis.record_store import Store"),
        ("export_worker.lifecycle.backoff", "from export_worker.redis import record_store"),
        ("export_worker.lifecycle.backoff", "import export_worker.redis.record_store as s"),
        ("export_worker.lifecycle.backoff", "def f():\n    import export_worker.redis.record_store"),
        (
            "export_worker.lifecycle.backoff",
            "if TYPE_CHECKING:\n    from export_worker.redis.claims import ClaimedStep",
        ),
        ("export_worker.redis.sweeper", "from export_worker.worker.leases import Leases"),
        ("export_worker.worker.leases", "from export_worker.cli import main"),
        ("export_worker.worker.runtime", "from export_worker.wiring.worker import open_runtime"),
        ("export_worker.worker.runtime", "from export_producers import ExportQueue"),
        # between rooms of one floor
        ("export_worker.errors", "import export_worker.egress.address_policy"),
        ("export_worker.s3.store", "from export_worker.redis.client import open_redis"),
        ("export_worker.redis.client", "import export_worker.s3.client"),
        ("export_worker.lifecycle.transitions", "from export_worker.telemetry.logs import configure_logging"),
        ("export_worker.transfer.engine", "from export_worker.config import Config"),
        ("export_worker.sinks.webhook", "from export_worker.platforms.http.client import HttpClient"),
        ("export_worker.commands.run", "from export_worker.demo.services import Services"),
        # the simulator shares nothing with what it tests
        ("export_worker.simulator.app", "from export_worker.transfer.part_sizes import part_size"),
        ("export_worker.simulator.app", "import export_worker.platforms"),
        # within platforms
        (
            "export_worker.platforms.growingio.driver",
            "from export_worker.platforms.thinkingdata.api import ThinkingdataApi",
        ),
        ("export_worker.platforms.http.client", "import export_worker.platforms.registry"),
        ("export_worker.platforms.base", "from export_worker.platforms.http.client import HttpClient"),
        # the producers' side
        ("export_producers.client", "from export_worker.redis.record_store import Store"),
        ("export_producers.client", "import export_worker.config"),
        ("export_producers.commands.actions", "from export_worker.redis.lua import script"),
        ("export_producers.explain", "from export_worker.lifecycle.transitions import deadline"),
        ("export_producers.lua", "from export_worker.redis.lua import script"),
    ],
)
def test_a_wrong_import_is_seen(importer: str, source: str) -> None:
    known = modules() | {importer: parsed(importer, Path("x.py"), source)}
    assert len(wrong_imports(known)) == 1


def test_a_cycle_is_seen_also_within_functions() -> None:
    first, second = "export_worker.lifecycle.backoff", "export_worker.lifecycle.poll_schedule"
    source = f"def f():\n    import {second}"
    assert set(cycle(modules() | {first: parsed(first, Path("x.py"), source)})) == {first, second}
