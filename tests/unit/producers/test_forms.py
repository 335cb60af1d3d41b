"""Forms from JSON Schemas: a request becomes texts of fields, and these texts become the same request."""

import re
import tomllib
from collections.abc import Mapping
from typing import Any, Literal

import pytest

from export_producers.console.request_form.descriptions import described
from export_producers.console.request_form.forms import (
    Field,
    _object_fields,
    about_kind,
    cleaned,
    fields_of,
    request_of,
    texts_of,
)
from export_worker.contract.dry_run import without_nulls
from export_worker.contract.kind_names import PLATFORM_OF_KIND
from export_worker.contract.model import Model
from export_worker.contract.parsing import parse_request
from export_worker.contract.printable import dumps
from export_worker.demo.requests import demo_requests
from export_worker.errors import InvalidRequestError
from export_worker.recipes.finding import find_recipe
from export_worker.recipes.kinds import BOX
from export_worker.recipes.names import box_names
from support.paths import ROOT

TRANSLATIONS = ROOT / "producers/export_producers/languages/translations/zh"
PROJECT = "WlGk4Daj"
FULL: tuple[dict[str, Any], ...] = (
    {"kind": "growingio.tag_users", "tag_key": "tag_1", "properties": ["城市", "a,b"], "detail_export": False},
    {"kind": "growingio.segment_users", "project_id": PROJECT, "segment_name": "分群 4", "tags": ["mgGJj3GA"]},
    {"kind": "growingio.analysis", "project_id": PROJECT, "analysis_id": "eA1vNt01", "analysis_type": "CHARTS"},
    {
        "kind": "growingio.segment_profile_users",
        "project_id": PROJECT,
        "segment_key": "seg_新",
        "properties": [f"p{number}" for number in range(60)],
        "file_format": "csv",
        "csv_header_type": "name",
    },
    {"kind": "growingio.user_tag_users", "tag_key": "tag_rfm", "file_format": "json"},
    {
        "kind": "thinkingdata.cluster_users",
        "project_id": 2**63 - 1,
        "cluster_id": 971,
        "catalog": "tag",
        "refresh": False,
        "columns": ["#user_id"],
    },
    {
        "kind": "sensorsdata.user_group_users",
        "group_id": 7,
        "execute": True,
        "base_times": ["2026-11-22 03:00:00", "2026-11-23 03:00:00"],
    },
    {
        "kind": "sensorsdata.segment_users",
        "segment_name": "user_segment_vip",
        "evaluate": False,
        "base_time": "2026-11-21T16:00:00Z",
    },
    {"kind": "sensorsdata.tag_users", "tag_name": "user_tag_level", "columns": ["id"]},
)
"""A request for each kind, with fields of every type."""
OUTPUT = {
    "compression": "zstd",
    "count_rows": True,
    "format": "parquet",
    "schema": {"age": "int64", "日期": "date"},
    "null_values": ["NULL", r"\N"],
    "columns": {"*mail*": "drop", "电话": "mask:4", "id": "hash"},
}
BESIDE = {
    "idempotency_key": "order-42",
    "deadline_s": 7200.5,
    "metadata": {"order": "42", "note": "a=b", "empty": ""},
    "notify": ["stream", "hook"],
}


def document(**request: Any) -> dict[str, Any]:
    return without_nulls(parse_request(dumps({"connection": "c"} | request)))


def fields(request: dict[str, Any]) -> tuple[Field, ...]:
    return fields_of(request["export"]["kind"])


def test_every_kind_has_an_example() -> None:
    assert {export["kind"] for export in FULL} == set(PLATFORM_OF_KIND)


@pytest.mark.parametrize("export", FULL, ids=lambda export: export["kind"])
@pytest.mark.parametrize("more", [{}, {"output": {"charset": "GB18030"}}, {**BESIDE}, {"output": OUTPUT}])
def test_form_states_the_same_request(export: dict[str, Any], more: dict[str, Any]) -> None:
    more = {} if "output" in more and export.get("file_format") == "json" else more
    request = document(export=export, **more)
    texts = texts_of(fields(request), request)
    assert texts is not None
    sent = {name: text.replace("\n", "\r\n") for name, text in texts.items()}
    assert document(**request_of("c", export["kind"], fields(request), sent)) == request


@pytest.mark.parametrize("request_", demo_requests(0, "good"), ids=lambda request: request.kind)
def test_form_states_each_request_of_the_demo(request_: Any) -> None:
    stored = without_nulls(request_)
    assert texts_of(fields(stored), stored) is not None


def test_every_field_of_every_kind_has_a_description_and_an_own_type() -> None:
    found = [each for kind in PLATFORM_OF_KIND for each in fields_of(kind)]
    assert [each.name for each in found if not each.about or each.shape == "json"] == []
    assert [each.name for each in fields_of("growingio.analysis") if each.is_required] == [
        "export.project_id",
        "export.analysis_id",
        "export.analysis_type",
    ]


def test_choices_of_a_field_are_those_of_the_contract() -> None:
    by_name = {each.name: each for each in fields_of("thinkingdata.cluster_users")}
    assert by_name["export.refresh"].choices == {"true": True, "false": False}
    assert by_name["export.refresh"].default is True
    assert list(by_name["output.compression"].choices) == ["none", "gzip", "zstd"]
    assert by_name["output.schema"].shape == "pairs"


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"a=b": "c"}},
        {"metadata": {"a": "two\nlines"}},
        {"metadata": {"a": " spaces "}},
        {"metadata": {"a": "turned\u202earound"}},
        {"export": {"kind": "growingio.tag_users", "tag_key": "t", "properties": ["a", "  "]}},
        {"export": {"kind": "growingio.tag_users", "tag_key": "t", "a_later_field": 1}},
        {"output": {"compression": {}}},
        {"export": None},
        {"deadline_s": "7200"},
    ],
)
def test_request_that_a_form_cannot_state_is_not_changed_by_one(change: dict[str, Any]) -> None:
    request = {"connection": "c", "export": {"kind": "growingio.tag_users", "tag_key": "t"}} | change
    assert texts_of(fields_of("growingio.tag_users"), request) is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("export.project_id", "", "is required"),
        ("export.project_id", "12x", 'must be a whole number, not "12x"'),
        ("export.project_id", "9" * 5000, "must be a whole number, not a text of 5000 characters"),
        ("export.cluster_id", "１２", 'must be a whole number, not "１２"'),  # noqa: RUF001 - such digits are typed
        ("export.refresh", "maybe", 'must be true or false, not "maybe"'),
        ("deadline_s", "1e400", 'must be a number, not "1e400"'),
        ("deadline_s", "0", "must be at least 0.001, not 0.0"),
        ("metadata", "no pair", "must be a JSON object, not a text"),
        ("output.compression", "zip", "must be 'none', 'gzip' or 'zstd', not \"zip\"; did you mean gzip?"),
    ],
)
def test_wrong_text_is_refused_by_the_check_of_the_request(name: str, text: str, message: str) -> None:
    kind = "thinkingdata.cluster_users"
    texts = {"export.project_id": "102", "export.cluster_id": "7"} | {name: text}
    with pytest.raises(InvalidRequestError) as error:
        parse_request(dumps(request_of("c", kind, fields_of(kind), texts)))
    assert [(each.field, each.message) for each in error.value.problems] == [(name, message)]


class Window(Model):
    """A part of the kind of another package."""

    since: str
    """From when on."""
    days: int | None = None
    """How long."""


class Node(Model):
    """A part that has itself as a part."""

    below: "Node | None" = None
    """The next one."""


class Strange(Model):
    """A kind with fields that none of ours has."""

    kind: Literal["other.strange"] = "other.strange"
    """The kind."""
    window: Window
    """When."""
    level: Literal[1, 2]
    """How much."""
    filters: list[Window] = []
    """Many parts."""
    either: int | str = 1
    """One of two types."""
    tree: Node | None = None
    """Endless."""
    weights: list[float] = []
    """Numbers."""


def test_fields_of_another_package_have_their_own_types_or_json() -> None:
    schema = Strange.model_json_schema()
    found = tuple(_object_fields(schema, schema["$defs"], ("export",), leaves_out=("kind",)))
    assert {each.name: each.shape for each in found} == {
        "export.window.since": "text",
        "export.window.days": "integer",
        "export.level": "choice",
        "export.filters": "json",
        "export.either": "json",
        "export.tree.below.below": "json",
        "export.weights": "list",
    }
    export = {
        "kind": "other.strange",
        "window": {"since": "2026", "days": 3},
        "level": 2,
        "filters": [{"since": "\u202e", "days": None}],
        "either": "a",
        "tree": {"below": {"below": {"below": None}}},
        "weights": [0.5, 2.0],
    }
    request = {"connection": "c", "export": export}
    texts = texts_of(found, request)
    assert texts is not None
    assert texts["export.level"] == "2"
    assert request_of("c", "other.strange", found, texts) == request


def test_text_of_a_form_is_what_the_page_shows() -> None:
    assert cleaned("a\u202eb\r\nc\x00") == "a\ufffdb\nc\ufffd"


def keys_of(file: str) -> Mapping[str, str]:
    """Returns the translations of a file by their English texts."""
    return tomllib.loads((TRANSLATIONS / file).read_text(encoding="utf-8"))


def test_every_description_is_translated_with_the_same_code() -> None:
    kinds = [about_kind(kind) for kind in PLATFORM_OF_KIND]
    shown = {*kinds, *(each.about for kind in PLATFORM_OF_KIND for each in fields_of(kind))}
    assert shown == set(keys_of("schema.toml"))
    for english in shown:
        assert sorted(described("en", english).parts[1::2]) == sorted(described("zh", english).parts[1::2]), english
    assert described("zh", "of `another` package").is_foreign


def test_descriptions_of_the_box_are_translated() -> None:
    kinds = [kind for name in box_names() for kind in find_recipe(name).kinds.values()]
    abouts = {f"{field.description.removesuffix('.')}." for kind in kinds for field in kind.fields.values()}
    assert {kind.title for kind in kinds} | abouts == set(keys_of("box.toml"))
    for each in (field for kind in BOX.platforms() for field in fields_of(kind)):
        shown = "".join(described("zh", each.about).parts[::2])
        assert not re.search("Required|Default|At (most|least) [0-9]| texts", shown), each.about


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("人群的 ID。 At most 64 characters. Required.", "人群的 ID。最多 64 个字符。必填。"),
        ("The id of a cohort. At most 64 characters. Required.", "The id of a cohort.最多 64 个字符。必填。"),
        ("Whether bots count. Default: true.", "Whether bots count. Default: true."),
    ],
)
def test_description_of_another_recipe_stays_in_the_language_of_the_recipe(english: str, chinese: str) -> None:
    assert described("zh", english).parts == [chinese]
