"""What the READMEs say is true."""

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest

from export_producers import ExportQueue
from export_producers.gateway import openapi
from export_worker.cli import cli
from export_worker.config import load_config
from export_worker.contract.event import Event
from export_worker.contract.parsing import parse_request
from export_worker.contract.status import Phase, Status
from export_worker.platforms.registry import installed_platforms
from support.deployment import blocks, check_settings, read
from support.paths import ROOT

READMES = (
    "README.md",
    "CHANGELOG.md",
    "k8s/README.md",
    "producers/README.md",
    "worker/PLATFORMS.md",
    "worker/README.md",
    "worker/README.zh.md",
    "worker/SECURITY.md",
)


@pytest.mark.parametrize("path", READMES)
def test_links_lead_somewhere(path: str) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", read(path)):
        assert (ROOT / path).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("language", ["python", "json", "toml"])
def test_the_chinese_readme_shows_the_same_code(language: str) -> None:
    assert blocks("worker/README.zh.md", language) == blocks("README.md", language)


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(r"^\$ .+$", id="commands of the console"),
        pytest.param(r"^\| (`.+?`|\d) \|", id="first column of the tables"),
    ],
)
def test_the_chinese_readme_tells_of_the_same(told: str) -> None:
    found = re.findall(told, read("worker/README.zh.md"), re.MULTILINE)
    assert found == re.findall(told, read("README.md"), re.MULTILINE)
    assert found


def test_the_table_of_commands_is_complete() -> None:
    section = read("README.md").split("## Commands")[1].split("\n## ")[0]
    rows = [row for row in re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE) if row[0].isalpha()]
    context = click.Context(cli)
    assert sorted(row.split()[0] for row in rows) == cli.list_commands(context)
    for row in rows:
        command = cli.get_command(context, row.split()[0])
        assert command is not None
        parts = [command, *(command.commands.values() if isinstance(command, click.Group) else ())]
        parameters = [parameter for part in parts for parameter in part.params]
        known = {name for parameter in parameters for name in parameter.opts if name.startswith("--")}
        assert set(re.findall(r"--[a-z-]+", row)) == known, row


def test_the_configuration_of_the_readme_is_one(clean_environment: pytest.MonkeyPatch) -> None:
    (example,) = blocks("README.md", "toml")
    Path("export-worker.toml").write_text(example, encoding="utf-8")
    clean_environment.setenv("GIO_TOKEN", "some-token")
    check_settings(load_config())


def test_the_documents_of_the_readme_are_what_they_say() -> None:
    request, event = blocks("README.md", "json")
    assert parse_request(request).connection == "gio"
    shown = json.loads(event)
    assert set(shown) == set(Event.model_fields) - {"traceparent"}, "only a request with a trace has an event with one"
    assert set(shown["data"]) < set(Status.model_fields)
    assert f"`{shown['type']}`" in read("README.md")


def test_what_the_readme_says_is_to_come_is_not_there_yet() -> None:
    _, _, coming = read("README.md").partition("Next, not there yet:")
    names = set(re.findall(r"`([a-z-]+)`", coming.partition("\n## ")[0]))
    assert names.isdisjoint({*cli.list_commands(click.Context(cli)), *installed_platforms()})


async def test_the_code_of_the_producers_readme_works(redis_url: str, namespace: str) -> None:
    code = "\n".join(blocks("producers/README.md", "python"))
    names: dict[str, Any] = {}
    exec(compile(code, "producers/README.md", "exec"), names)
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        first, second = await names["ask"](queue), await names["ask"](queue)
    assert (first.deduplicated, second.deduplicated) == (False, True)
    assert first.export_id == second.export_id
    in_memory = names["queue"]
    assert (await in_memory.wait((await names["ask"](in_memory)).export_id)).phase is Phase.SUCCEEDED


def test_the_calls_of_the_producers_readme_are_those_of_the_api() -> None:
    told = set(re.findall(r"`(?:GET|POST) (/[^`?]*)", read("producers/README.md")))
    paths = {path.replace("{export_id}", "{id}") for path in openapi.document()["paths"]}
    assert {path for path in paths if path.startswith("/v1/")} <= told
