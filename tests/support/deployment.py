"""What image, compose file, Kubernetes manifests and READMEs say, read for the tests that hold them."""

import re
import shlex
import sys
import tomllib
from collections.abc import Sequence
from typing import Any

import click
import yaml  # type: ignore[import-untyped]  # comes with moto; its stubs are not among our tools

from export_worker.cli import cli
from export_worker.config import Config
from export_worker.credentials import Redactor
from export_worker.demo.processes import EXPORT_WORKER
from export_worker.platforms.registry import build_driver
from support.paths import ROOT


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(path: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", read(path), re.DOTALL | re.MULTILINE)


PROJECT = tomllib.loads(read("pyproject.toml"))
COMPOSE = yaml.safe_load(read("docker-compose.yml"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN_SERVICES = sorted(name for name, service in SERVICES.items() if "build" in service)
COMMAND_SERVICES = sorted(name for name in OWN_SERVICES if "entrypoint" not in SERVICES[name])
OWN_IMAGE = f"export-worker:{PROJECT['project']['version']}"


def parsed(arguments: list[str]) -> click.Context:
    """The command line as click understands it, without running anything."""
    group = cli.make_context("export-worker", list(arguments))
    name, command, rest = cli.resolve_command(group, list(arguments))
    assert command is not None
    return command.make_context(name, rest, parent=group)


def installed(words: Sequence[str]) -> list[str]:
    """A command of the image, as this installation has it."""
    own = {"export-worker": [*EXPORT_WORKER], "python": [sys.executable]}
    return [*own[words[0]], *words[1:]]


def check_settings(config: Config) -> None:
    """Every connection is what its driver expects."""
    for name, settings in config.connections.items():
        build_driver(name, settings, Redactor())


def instructions(name: str) -> list[list[str]]:
    """The arguments of one kind of instruction in the Dockerfile."""
    lines = read("worker/Dockerfile").replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"{name} ")]
