"""Compares the documents with the code: links, commands, settings, examples, names of log events."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from export_producers import ExportQueue
from export_producers.gateway.documents import openapi
from export_worker.cli import cli
from export_worker.config import Config, load_config
from export_worker.config.sinks import AnySink, SinkSettings
from export_worker.contract.event import Event
from export_worker.contract.parsing import parse_request
from export_worker.contract.status import Phase, Status
from export_worker.platforms.registry import installed_platforms
from export_worker.platforms.settings import ConnectionSettings
from support.deployment import blocks, check_settings, read
from support.documents import (
    DOCUMENTS,
    headings,
    linked_headings,
    links,
    section_links,
    slug,
    source_text,
    table_rows,
)
from support.paths import ROOT

README_LINES_MAX = 200
PICTURE_BYTES_MAX = 150_000
"""A clone fetches every version of a picture."""
LINES_WITHOUT_CONTENTS_MAX = 150
"""A longer document has a table of contents, because its readers look for one section."""
IN_ENGLISH = "\uff08\u82f1\u6587\uff09"
"""Marks a link to an English page in the Chinese README: the word for English in full-width parentheses."""
FILES_OF_READERS = {"example.py", "lifecycle.json", "policy.json"}
"""Files that a reader writes. They do not exist in the repository."""


@pytest.mark.parametrize("path", DOCUMENTS)
def test_links_lead_to_existing_files_and_headings(path: str) -> None:
    for target, anchor in links(path):
        file = (ROOT / path).parent.joinpath(target).resolve() if target else ROOT / path
        assert file.exists(), target
        if anchor:
            assert anchor in map(slug, headings(file.read_text(encoding="utf-8"))), f"{target}#{anchor}"


def test_link_to_missing_heading_is_detected() -> None:
    assert slug("What Redis must keep") == "what-redis-must-keep"
    assert slug("`[s3]`, and 2 more") == "s3-and-2-more"
    assert section_links("[a](#a)\n[b](k8s/README.md#b)") == ["a"]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_long_document_has_a_complete_table_of_contents(path: str) -> None:
    text = read(path)
    if len(text.splitlines()) <= LINES_WITHOUT_CONTENTS_MAX:
        return
    contents, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    assert section_links(contents) == [slug(section.partition("\n")[0]) for section in sections]


def test_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) <= README_LINES_MAX


@pytest.mark.parametrize(("path", "suffix"), [("README.md", ".png"), ("worker/README.zh.md", ".zh.png")])
def test_readme_shows_two_small_pictures_of_the_console(path: str, suffix: str) -> None:
    shown = re.findall(r"^!\[.+\]\((?:\.\./)?(producers/pictures/console-\w+(\.zh)?\.png)\)$", read(path), re.MULTILINE)
    assert len(shown) == 2
    for name, _ in shown:
        picture = (ROOT / name).read_bytes()
        assert name.endswith(suffix)
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(picture) <= PICTURE_BYTES_MAX


def test_chinese_readme_has_the_same_code_blocks() -> None:
    fenced = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    found = fenced.findall(read("README.md"))
    assert {language for language, _ in found} >= {"python", "console"}
    assert fenced.findall(read("worker/README.zh.md")) == found


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"^\$ .+$", id="commands of the console"),
        pytest.param(r"^\| (`.+?`|\d) \|", id="first column of the tables"),
    ],
)
def test_chinese_readme_has_the_same_commands(pattern: str) -> None:
    found = re.findall(pattern, read("worker/README.zh.md"), re.MULTILINE)
    assert found == re.findall(pattern, read("README.md"), re.MULTILINE)
    assert found


def test_chinese_readme_links_to_the_same_pages_and_marks_english_ones() -> None:
    def pages(path: str) -> list[Path]:
        targets = [target for target, _ in links(path) if target and not target.endswith(".png")]
        return [(ROOT / path).parent.joinpath(target).resolve() for target in targets]

    chinese, english = "worker/README.zh.md", "README.md"
    other = {ROOT / chinese, ROOT / english}
    assert set(pages(chinese)) - other == set(pages(english)) - other
    assert len(linked_headings(read(chinese))) == len(linked_headings(read(english)))
    unmarked = re.findall(rf"\]\((?!https?:)([^)]+\.md[^)]*)\)(?!{IN_ENGLISH})", read(chinese))
    assert unmarked == ["../README.md", "../CHANGELOG.md"], "the second one shares the mark of the next link"


def test_shown_end_of_the_demo_has_its_real_headings() -> None:
    demo, _ = blocks("README.md", "console")
    _, screen, end = re.split(r"^\$ make demo\n|^…\n(?=Objects)", demo, flags=re.MULTILINE)
    heading, *_ = end.splitlines()
    assert f'"{heading}"' in source_text()
    assert screen, "a test of the screen compares it"


def test_table_of_commands_is_complete() -> None:
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


def test_configuration_example_loads(clean_environment: pytest.MonkeyPatch) -> None:
    every = blocks("worker/OPERATING.md", "toml")
    example, recipe, queues, network, windows, retries, keys, storage, columns, hook, archive, *rest = every
    schedules, callers = rest
    for name in ("GIO_TOKEN", "AMPLITUDE_KEY", "AMPLITUDE_SECRET", "HASH_KEY"):
        clean_environment.setenv(name, "some-token")
    # The later examples repeat a table of the first one, as a reader would edit it.
    divided = re.sub(r"key_template = .+\n", keys.removeprefix("[s3]\n"), example)
    hooked = re.sub(r"\[sinks\.hook\]\n(.+\n)+", hook, example)
    networked = re.sub(r"\[connections\.gio\]\n(.+\n)+", network, example)
    called = re.sub(r"\[gateway\]\n(.+\n)+\n\[gateway\.keys\.oncall\]\n(.+\n)+", callers, example)
    archived = example.replace("[worker]\n", archive)
    for text in (
        example,
        networked,
        divided,
        f"{example}\n{storage}",
        f"{example}\n{columns}",
        f"{example}\n{recipe}",
        f"{example}\n{queues}",
        f"{example}\n{windows}\n{retries}",
        hooked,
        called,
        archived,
        f"{example}\n{schedules}",
    ):
        Path("export-worker.toml").write_text(text, encoding="utf-8")
        check_settings(load_config())


def settings_of(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yields each setting of a section with its full name. A connection's name is `NAME`."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if name in {"sinks", "triggers"} or (path and name == "s3"):
            if path:
                yield path + name, field
        elif name == "connections":
            yield from settings_of(ConnectionSettings, "connections.NAME.")
        elif inspect.isclass(kind) and issubclass(kind, BaseModel):
            yield from settings_of(kind, f"{path}{name}.")
        else:
            yield path + name, field


def test_table_of_sinks_has_every_type_with_its_settings() -> None:
    rows = {
        row[0].strip("`"): row[1] for row in table_rows("worker/OPERATING.md", "`type`", "Settings (`?` = optional)")
    }
    union, _ = get_args(AnySink)
    models: dict[str, type[SinkSettings]] = {
        get_args(each.model_fields["type"].annotation)[0]: each for each in get_args(union)
    }
    assert set(rows) == set(models)
    for name, model in models.items():
        own = {
            field: info
            for field, info in model.model_fields.items()
            if field not in {*SinkSettings.model_fields, "type"}
        }
        shown = set(re.findall(r"`([a-z_]+\??)`(?: \((?:RabbitMQ|required for NATS)\))?", rows[name])) - {
            "rabbitmq",
            "nats",
            "kafka",
        }
        assert shown == {field if info.is_required() else f"{field}?" for field, info in own.items()}, name


def test_table_of_platforms_is_complete() -> None:
    rows = table_rows("worker/OPERATING.md", "Platform", "Credential")
    assert sorted(re.findall(r"`([a-z-]+)`", row[0])[0] for row in rows) == installed_platforms()


@pytest.mark.parametrize("path", ["README.md", "worker/OPERATING.md", "k8s/README.md"])
def test_dotted_names_are_settings_kinds_event_types_or_log_events(path: str) -> None:
    known = {name.partition("connections.NAME.")[2] or name for name, _ in settings_of(Config)}
    known |= set(re.findall(r'"([a-z_]+\.[a-z_]+)"', source_text()))
    shown = set(re.findall(r"`([a-z][a-z_]*\.[a-z_]+)`", read(path)))
    assert shown - known - FILES_OF_READERS == set()


def test_documented_event_has_fields_of_the_models() -> None:
    (event,) = (block for block in blocks("worker/OPERATING.md", "json") if '"specversion"' in block)
    shown = json.loads(event)
    # Only a request with a trace has an event with one, and only an event that is too large omits objects.
    assert set(shown) == set(Event.model_fields) - {"traceparent", "objectsomitted"}
    assert set(shown["data"]) < set(Status.model_fields)
    assert f"`{shown['type']}`" in read("worker/OPERATING.md")


def test_documented_request_is_valid() -> None:
    request, *_ = blocks("producers/README.md", "json")
    assert parse_request(request).connection == "gio"


async def test_code_of_the_producers_readme_works(redis_url: str, namespace: str) -> None:
    code = "\n".join(blocks("producers/README.md", "python"))
    names: dict[str, Any] = {}
    exec(compile(code, "producers/README.md", "exec"), names)
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        first, second = await names["ask"](queue), await names["ask"](queue)
        urgent = await queue.status((await names["ask_first"](queue)).export_id)
    assert (first.deduplicated, second.deduplicated) == (False, True)
    assert first.export_id == second.export_id
    assert urgent.request is not None
    assert urgent.request["priority"] == "high"
    in_memory = names["queue"]
    assert (await in_memory.wait((await names["ask"](in_memory)).export_id)).phase is Phase.SUCCEEDED


def test_producers_readme_lists_all_calls_of_the_api() -> None:
    documented = set(re.findall(r"`(?:GET|POST|DELETE) (/[^`?]*)", read("producers/README.md")))
    paths = {path.replace("{export_id}", "{id}") for path in openapi.document()["paths"]}
    assert {path for path in paths if path.startswith("/v1/")} <= documented
