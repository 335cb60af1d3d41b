"""Runs the suite for each kind of a recipe with pytest, whose settings of the user do not count."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest

pytest.register_assert_rewrite("export_worker.platforms.conformance", "export_worker.platforms.recipe_check.suite")

from export_worker.errors import ConfigError  # noqa: E402 - after the registration
from export_worker.platforms.recipe_check.calls import call_problems  # noqa: E402 - as above
from export_worker.platforms.recipe_check.samples import (  # noqa: E402 - after the registration
    Answers,
    checked_recipe,
    export_of,
    options_of,
    secrets_of,
)
from export_worker.platforms.recipe_check.suite import Target, suite_of  # noqa: E402 - as above
from export_worker.recipes.finding import use_recipe_as  # noqa: E402 - as above
from export_worker.recipes.model import Recipe  # noqa: E402 - as above

MESSAGE_MAX_CHARS = 400
_OWN = ("-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider", "-p", "no:terminal", "--noconftest")
Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Args:
        kind: The kind that was checked.
        name: What was checked, in words.
        message: Why it failed or was skipped; empty if it passed.
    """

    kind: str
    name: str
    outcome: Outcome
    message: str = ""


def check_recipe(recipe: Recipe) -> list[Check]:
    """Checks every kind of a recipe.

    Raises:
        ConfigError: The check needs samples that the recipe does not have.
    """
    checked = checked_recipe(recipe)
    reference = f"recipe-check/{recipe.name}.toml"
    use_recipe_as(reference, checked)
    targets = [
        Target(reference, checked, name, export_of(checked, name), options_of(checked), secrets_of(checked))
        for name in checked.kinds
    ]
    for target in targets:
        Answers(checked, target.name)
    problems = [problem for target in targets for problem in call_problems(checked, target.name)]
    if problems:
        raise ConfigError(*problems)
    return [result for target in targets for result in _run(target)]


def _run(target: Target) -> list[Check]:
    collector = _Collector(target)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "test_recipe.py"
        file.write_text("", encoding="utf-8")
        settings = Path(folder) / "pytest.ini"
        settings.write_text(
            "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n", encoding="utf-8"
        )
        arguments = ["-c", str(settings), "--rootdir", folder, *_OWN, str(file)]
        status = pytest.main(arguments, plugins=[collector])
    if not collector.results:
        raise RuntimeError(f"the checks of {target.name} have not run (pytest ended with {status})")
    return collector.results


class _Collector:
    """A plugin that puts the suite into the collected module, and takes the results."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.results: list[Check] = []

    def pytest_pycollect_makemodule(self, module_path: Path, parent: Any) -> Any:
        """Returns the module of the suite."""
        module = ModuleType("test_recipe")
        module.TestRecipe = suite_of(self._target)  # type: ignore[attr-defined]
        collected = pytest.Module.from_parent(parent, path=module_path)
        collected._obj = module  # noqa: SLF001 - what pytest would import from the file
        return collected

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes the result of a test; of its preparation and its end only failures."""
        if report.when != "call" and report.outcome == "passed":
            return
        kind = f"{self._target.recipe.name}.{self._target.name}"
        self.results.append(Check(kind, _words(report.nodeid), report.outcome, _message(report)))


def _words(nodeid: str) -> str:
    name = nodeid.rpartition("::")[2].removeprefix("test_")
    words, bracket, parameters = name.partition("[")
    return words.replace("_", " ") + (f" ({parameters.rstrip(']')})" if bracket else "")


def _message(report: pytest.TestReport) -> str:
    match report.longrepr:
        case None:
            return ""
        case (_, _, reason):
            return str(reason).removeprefix("Skipped: ")
        case found:
            crash = getattr(found, "reprcrash", None)
            text = str(found) if crash is None else str(crash.message)
            return re.sub(r"\s+", " ", text)[:MESSAGE_MAX_CHARS]


def failed(checks: Sequence[Check]) -> list[Check]:
    """Returns the checks that failed."""
    return [check for check in checks if check.outcome == "failed"]
