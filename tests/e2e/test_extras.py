"""Errors for packages that are not installed, in environments that have only some extras."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from export_producers.commands.running import RunsFunction
from export_worker.contract.extras import EXTRAS
from support import command_tree, partial_install
from support.paths import ROOT

DRIVER = "export_worker.platforms.growingio.driver"
LATER = {
    "run": DRIVER,
    "catalog": DRIVER,
    "call": DRIVER,
    "doctor": DRIVER,
    "recipe": "export_worker.platforms.recipe_check.running",
    "simulate": "graphql",
    "demo": "moto",
    "trigger": "boto3",
}
"""A module that a command imports, or starts as a process, after its own."""
IMPORT_COMMANDS = """
import json, sys
from importlib import import_module

missing = []
for name, modules in json.loads(sys.argv[1]).items():
    try:
        for module in modules:
            import_module(module)
    except ModuleNotFoundError:
        missing.append(name)
json.dump(missing, sys.stdout)
"""
ASKS_FOR_CATALOG = """
from export_worker.config import load_config
from export_worker.credentials import Redactor
from export_worker.wiring.gateway import catalog_call

print(catalog_call(load_config(), Redactor()))
"""


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An environment for each extra that a command may need, and the base install under the empty name."""
    root = tmp_path_factory.mktemp("environments")
    extras = {"", *EXTRAS.values()}
    return {extra: partial_install.install(root / (extra or "base"), *filter(None, [extra])) for extra in extras}


def commands_without_packages(packages: Path) -> set[str]:
    """Returns the commands that cannot import their modules."""
    modules = {
        path[0]: [command.target.partition(":")[0], *filter(None, [LATER.get(path[0])])]
        for path, command in command_tree.commands()
        if isinstance(command, RunsFunction)
    }
    ran = partial_install.run(packages, "-c", IMPORT_COMMANDS, json.dumps(modules))
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout))


def smallest(extras: Sequence[str]) -> str:
    return min(extras, key=lambda extra: len(partial_install.distributions([extra])))


def test_each_command_names_the_smallest_extra_with_all_of_its_packages(environments: dict[str, Path]) -> None:
    without = {extra: commands_without_packages(packages) for extra, packages in environments.items()}
    assert without[""] == set(EXTRAS)
    enough = {command: [extra for extra in without if command not in without[extra]] for command in EXTRAS}
    assert {command: smallest(extras) for command, extras in enough.items()} == EXTRAS


def test_command_without_its_extra_names_a_command_that_installs_it_here(environments: dict[str, Path]) -> None:
    ran = partial_install.run(environments[""], "-m", "export_worker", "gateway")
    assert ran.returncode == 2
    assert "gateway needs " in ran.stderr
    assert re.search(r"from the extra gateway; install it with: .+ install .*'\.\[gateway\]'$", ran.stderr.strip())


@pytest.mark.parametrize("installed", ["", "worker"])
def test_demo_without_its_extra_says_so_before_it_starts_exports(environments: dict[str, Path], installed: str) -> None:
    ran = partial_install.run(environments[installed], "-m", "export_worker", "demo")
    assert ran.returncode == 2, ran.stderr
    assert re.search(r"demo needs .+\.\[demo\]'$", ran.stderr.strip())


def test_gateway_offers_no_catalog_without_the_packages_of_drivers(environments: dict[str, Path]) -> None:
    # The extra of triggers has boto3 and aiohttp, but not all packages of drivers.
    assert partial_install.run(environments["trigger"], "-c", ASKS_FOR_CATALOG).stdout == "None\n"


def test_no_text_installs_the_project_from_a_package_index() -> None:
    """The name on the index is not registered. Its first owner could run code on the machines of our users."""
    texts = [path for folder in ("worker", "producers", "k8s") for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = [path for path in texts if path.suffix in {".py", ".md", ".yaml", ".toml"}]
    named = re.compile(r"""(?:pip|pipx|uv|tool) install (-\S+ )*["']?export-worker""")
    found = [str(path) for path in [ROOT / "README.md", *texts] if named.search(path.read_text(encoding="utf-8"))]
    assert found == []
