"""Reads the image, the compose file and the READMEs for the tests that check them."""

import re
import shlex
import sys
import tomllib
from collections.abc import Sequence
from typing import Any

import click
import yaml  # type: ignore[import-untyped]  # moto installs it; its type stubs are not installed

from export_worker.cli import cli
from export_worker.config import Config
from export_worker.credentials import Redactor
from export_worker.demo.processes import EXPORT_WORKER
from export_worker.platforms.registry import build_driver
from support.paths import ROOT


def read(path: str) -> str:
    """Returns the text of a file of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(path: str, language: str) -> list[str]:
    """Returns the fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", read(path), re.DOTALL | re.MULTILINE)


PROJECT = tomllib.loads(read("pyproject.toml"))
COMPOSE = yaml.safe_load(read("docker-compose.yml"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN_SERVICES = sorted(name for name, service in SERVICES.items() if "build" in service)
COMMAND_SERVICES = sorted(name for name in OWN_SERVICES if "entrypoint" not in SERVICES[name])
OWN_IMAGE = f"export-worker:{PROJECT['project']['version']}"


def parsed(arguments: list[str]) -> click.Context:
    """Returns the command line as click parses it. Runs no command."""
    group = cli.make_context("export-worker", list(arguments))
    name, command, rest = cli.resolve_command(group, list(arguments))
    assert command is not None
    return command.make_context(name, rest, parent=group)


def installed(arguments: Sequence[str]) -> list[str]:
    """Returns a command of the image with the programs of this installation."""
    own = {"export-worker": [*EXPORT_WORKER], "python": [sys.executable]}
    return [*own[arguments[0]], *arguments[1:]]


def check_settings(config: Config) -> None:
    """Builds the driver of every connection, so that each checks its settings."""
    for name, settings in config.connections.items():
        build_driver(name, settings, Redactor())


def instructions(name: str) -> list[list[str]]:
    """Returns the arguments of every instruction of one kind in the Dockerfile."""
    lines = read("worker/Dockerfile").replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"{name} ")]
