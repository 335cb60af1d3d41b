"""Help and completion of the command line import only what they need, so that they answer at once."""

import inspect
import json
import subprocess
import sys
from importlib import import_module

import click
import pytest

from export_producers.commands.running import RunsFunction
from export_worker.cli import PROGRAM
from support.command_tree import commands

RUN_EACH = """
import io, json, os, sys

before = set(sys.modules)  # also what files for site-packages import

def loaded(variables, arguments):
    here, there = os.pipe()
    if os.fork() == 0:
        os.close(here)
        os.environ.update(variables)
        sys.argv = ["export-worker", *arguments]
        output = sys.stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        try:
            from export_worker.cli import main
            main()
        except SystemExit as ended:
            assert not ended.code, (arguments, ended.code)
        output.flush()
        shown = output.buffer.getvalue().decode()
        with os.fdopen(there, "w") as pipe:
            json.dump({"modules": sorted(set(sys.modules) - before), "output": shown}, pipe)
        os._exit(0)
    os.close(there)
    with os.fdopen(here) as pipe:
        answer = pipe.read()
    os.wait()
    return json.loads(answer)

json.dump([loaded(*case) for case in json.loads(sys.argv[1])], sys.stdout)
"""
"""Runs each command line in a process of its own, forked from one that has imported nothing of the project."""

STANDARD = sys.stdlib_module_names | {"__main__", "__mp_main__"}
ALLOWED = {"click", "colorama", "typing_extensions"}
"""The packages of others that help and completion may import."""
OURS = {
    "export_producers",
    "export_producers.choices",
    "export_producers.language_choice",
    "export_producers.moments",
    "export_producers.commands",
    "export_producers.commands.completion",
    "export_producers.commands.declarations",
    "export_producers.commands.lean_imports",
    "export_producers.commands.options",
    "export_producers.commands.running",
    "export_worker",
    "export_worker.cli",
    "export_worker.contract.facets",
    "export_worker.commands",
    "export_worker.commands.declarations",
    "export_worker.commands.operation_names",
    "export_worker.contract",
    "export_worker.contract.kind_names",
    "export_worker.contract.names",
    "export_worker.contract.phase",
    "export_worker.contract.printable",
    "export_worker.contract.redis_keys",
    "export_worker.contract.schedule_keys",
    "export_worker.contract.event_keys",
    "export_worker.contract.namespace",
    "export_worker.contract.settings_file",
    "export_worker.errors",
    "export_worker.recipes",
    "export_worker.recipes.kinds",
    "export_worker.recipes.names",
    "export_worker.texts",
    "export_worker.texts.decoding",
}
"""The modules of this project that help and completion may import. None of them imports a large package."""
SLOW_STANDARD_MODULES = {"asyncio", "tomllib", "email", "urllib.request", "multiprocessing"}
"""Modules of the standard library that take long to import, and that `--help` does not need."""


def tab(*words: str) -> tuple[dict[str, str], list[str]]:
    """Returns the variables and arguments with which bash asks for completions of the last word."""
    line = " ".join([PROGRAM, *words])
    return {
        "_EXPORT_WORKER_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
        "EXPORT_CONFIG": "",
    }, []


def run_each(cases: list[tuple[dict[str, str], list[str]]]) -> list[tuple[set[str], str]]:
    """Returns the imported modules and the output of each command line."""
    command = [sys.executable, "-W", "error", "-c", RUN_EACH, json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    return [(set(answer["modules"]), answer["output"]) for answer in json.loads(done.stdout)]


def unexpected(modules: set[str]) -> set[str]:
    """Returns the imported modules that are not on the lists above."""
    return {
        name
        for name in modules
        if name not in OURS and name.partition(".")[0] not in STANDARD | ALLOWED and not name.startswith("_")
    }


def test_help_of_every_command_imports_nothing_else() -> None:
    paths = [(), *(path for path, _ in commands())]
    assert len(paths) > 15
    answers = run_each([({}, [*path, "--help"]) for path in paths])
    for path, (modules, output) in zip(paths, answers, strict=True):
        assert output.startswith(f"Usage: {' '.join([PROGRAM, *path])} ")
        assert unexpected(modules) == set(), path
        assert modules & SLOW_STANDARD_MODULES == set(), path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("",), "plain,enqueue"),
        (("li",), "plain,list"),
        (("list", "--"), "plain,--phase"),
        (("list", "--phase", "f"), "plain,failed"),
        (("retry", "--failed", "--error", "platform_u"), "plain,platform_unavailable"),
        (("list", "--kind", "growingio.s"), "plain,growingio.segment_users"),
        (("catalog", "gio", "seg"), "plain,segments"),
        (("events", ""), "plain,replay"),
        (("events", "undelivered", "--sink", ""), "plain,stream"),
        (("enqueue", "req"), "file,req"),
    ],
    ids=lambda it: " ".join(it) if isinstance(it, tuple) else "",
)
def test_completion_answers_and_imports_nothing_else(words: tuple[str, ...], expected: str) -> None:
    ((modules, output),) = run_each([tab(*words)])
    assert expected in output.splitlines()
    assert unexpected(modules) == set()


def test_module_that_is_not_listed_is_detected() -> None:
    assert unexpected({"export_worker.cli", "redis.asyncio", "json", "export_worker.config"}) == {
        "redis.asyncio",
        "export_worker.config",
    }


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=lambda it: " ".join(it) if type(it) is tuple else ""
)
def test_function_of_a_command_takes_exactly_its_parameters(path: tuple[str, ...], command: click.Command) -> None:
    if isinstance(command, click.Group):
        return
    assert isinstance(command, RunsFunction), path
    module, _, name = command.target.partition(":")
    function = inspect.unwrap(getattr(import_module(module), name))
    taken = set(inspect.signature(function).parameters) - {"open_queue"}
    assert taken == {parameter.name for parameter in command.params}
