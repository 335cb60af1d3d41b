"""The kinds of recipes as kinds of requests: when they are known, their fields, their schema, and their names."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from export_producers import use_recipe
from export_producers.commands.completion import kinds
from export_producers.console.request_form.drafts import kinds_of
from export_producers.console.request_form.forms import about_kind, fields_of
from export_worker.cli import cli
from export_worker.config import load_config
from export_worker.contract import kind_names
from export_worker.contract.parsing import parse_request
from export_worker.contract.request import ExportRequest, kind_model
from export_worker.errors import ConfigError, InvalidRequestError
from export_worker.lifecycle.export import Export
from export_worker.recipes.fields import _definition
from export_worker.recipes.finding import find_recipe
from export_worker.recipes.model import FieldSpec
from export_worker.recipes.names import box_names, box_text
from support.paths import ROOT

TEXT = (ROOT / "tests" / "data" / "recipes" / "lists.toml").read_text(encoding="utf-8")
EXPORT = {"kind": "lists.users", "list_id": "vip"}


@pytest.fixture(autouse=True)
def _forgets_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process do not see the kinds of these recipes."""
    monkeypatch.setattr(kind_names, "_added", {})


def configured(folder: Path, text: str = TEXT, *, settings: str = "") -> Path:
    """Writes a configuration with one connection to a recipe file beside it."""
    (folder / "recipes").mkdir(parents=True)
    (folder / "recipes" / "mine.toml").write_text(text, encoding="utf-8")
    file = folder / "export-worker.toml"
    base = '[connections.mine]\nplatform = "recipe"\nrecipe = "recipes/mine.toml"\n'
    file.write_text(f'{base}base_url = "https://lists.example"\n{settings}', encoding="utf-8")
    return file


def request(**fields: Any) -> ExportRequest:
    return parse_request(json.dumps({"connection": "mine", "export": EXPORT | fields}))


def problems(**fields: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        request(**fields)
    return {problem.field: problem.message for problem in caught.value.problems}


def test_kinds_of_a_file_are_known_as_soon_as_the_configuration_is_loaded(tmp_path: Path) -> None:
    assert "lists.users" not in problems()["export.kind"]
    before = Export.model_json_schema()  # a model that holds requests and was built before
    load_config(str(configured(tmp_path)))
    accepted = request()
    assert (accepted.kind, accepted.platform) == ("lists.users", "recipe:lists")
    stored = accepted.model_dump_json(exclude_none=True)
    assert json.loads(stored)["export"] == EXPORT | {"limit": 100, "mode": "full"}
    assert ExportRequest.model_validate_json(stored) == accepted
    assert "ListsUsers" in Export.model_json_schema()["$defs"].keys() - before["$defs"].keys()


def test_wrong_fields_are_refused_as_those_of_other_kinds(tmp_path: Path) -> None:
    load_config(str(configured(tmp_path)))
    assert problems(list_id="No!", limit=0, mode="fst", colums=["a"], ratio="x", active=1) == {
        "export.list_id": "must match [a-z0-9]{1,8}",
        "export.limit": "must be at least 1, not 0",
        "export.mode": "must be 'fast' or 'full', not \"fst\"; did you mean fast?",
        "export.ratio": 'must be a number, not "x"',
        "export.active": "must be true or false, not 1",
        "export.colums": (
            "unknown field; did you mean columns?; allowed here: kind, list_id, columns, limit, mode, ratio, active"
        ),
    }
    assert problems(kind="lists.user")["export.kind"].endswith("; did you mean lists.users?")


def test_schema_describes_the_fields(tmp_path: Path) -> None:
    load_config(str(configured(tmp_path)))
    schema = ExportRequest.model_json_schema()
    reference = schema["properties"]["export"]["discriminator"]["mapping"]["lists.users"]
    kind = schema["$defs"][reference.rpartition("/")[2]]
    assert (kind["description"], kind["required"]) == ("The users of one list.", ["kind", "list_id"])
    fields = kind["properties"]
    assert fields["list_id"] == {
        "description": "The id of the list. At most 512 characters. Required.",
        "examples": ["vip"],
        "maxLength": 512,
        "minLength": 1,
        "pattern": "^(?:[a-z0-9]{1,8})$",
        "title": "List Id",
        "type": "string",
    }
    assert (fields["limit"]["minimum"], fields["limit"]["maximum"], fields["limit"]["default"]) == (1, 1000, 100)
    assert fields["mode"]["enum"] == ["fast", "full"]
    assert fields["kind"]["const"] == "lists.users"


@pytest.mark.parametrize(
    ("spec", "about"),
    [
        ({"description": "人群的 ID。", "max_chars": 8}, "人群的 ID。 At most 8 characters. Required."),
        ({"description": "Bots", "type": "boolean", "optional": True}, "Bots. Default: none."),
        ({"description": "Bots. Default: all.", "type": "boolean", "optional": True}, "Bots. Default: all."),
    ],
)
def test_description_ends_with_limits_and_one_default(spec: dict[str, Any], about: str) -> None:
    assert _definition(FieldSpec.model_validate(spec))[1].description == about


def test_connection_has_address_and_limits_of_its_recipe(tmp_path: Path) -> None:
    text = TEXT.replace("auth = {", 'base_url = "https://api.lists.example"\nauth = {')
    file = configured(tmp_path, text)
    file.write_text(file.read_text(encoding="utf-8").replace('base_url = "https://lists.example"\n', "max_in_flight=2"))
    config = load_config(str(file))
    connection = config.connections["mine"]
    assert (connection.base_url, connection.requests_per_second) == ("https://api.lists.example", 2.5)
    assert connection.max_in_flight == 2, "the connection's own setting counts more than that of the recipe"
    assert config.platforms() == {"mine": "recipe:lists"}


def test_second_configuration_replaces_a_recipe_of_the_same_name(tmp_path: Path) -> None:
    first = configured(tmp_path / "first")
    second = configured(tmp_path / "second", TEXT.replace("fields.mode", "fields.manner"))
    load_config(str(first))
    before = kind_model("lists.users")
    load_config(str(first))
    assert kind_model("lists.users") is before, "as long as the file is the same, its models are"
    load_config(str(second))
    assert problems(mode="fast")["export.mode"].startswith("unknown field")
    assert request(manner="fast").export.kind == "lists.users"
    load_config(str(first))
    assert request(mode="fast").export.kind == "lists.users"


WRONG_CONNECTIONS = [
    ('"recipes/mine.toml"', '"amplitud"', "; did you mean amplitude?; known: amplitude"),
    ('"recipes/mine.toml"', '"recipes/yours.toml"', "recipes/yours.toml (No such file or directory)"),
    ('"recipes/mine.toml"', "3", "must be the name of a recipe, or the path of its file in quotes"),
    ('recipe = "recipes/mine.toml"', "", "must be the name of a recipe"),
]


@pytest.mark.parametrize(("right", "wrong", "expected"), WRONG_CONNECTIONS)
def test_wrong_recipe_of_a_connection_is_refused_with_its_setting(
    tmp_path: Path, right: str, wrong: str, expected: str
) -> None:
    file = configured(tmp_path)
    file.write_text(file.read_text(encoding="utf-8").replace(right, wrong), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(str(file))
    [problem] = caught.value.problems
    assert problem.startswith("connections.mine.recipe: ")
    assert expected in problem
    assert "export-worker.toml, line" in problem


def test_problem_of_a_recipe_names_both_files_and_lines(tmp_path: Path) -> None:
    file = configured(tmp_path, TEXT.replace("submit = {", "submt = {"))
    with pytest.raises(ConfigError) as caught:
        load_config(str(file))
    first, second = caught.value.problems
    assert "recipes/mine.toml, line 12: kinds.users.submit: is required" in first
    assert f"(in {file}, line 3)" in second


@pytest.mark.parametrize(
    ("name", "expected"),
    [("amplitude", "belongs to a recipe that comes with export-worker"), ("lists", "rename one of them")],
)
def test_two_recipes_with_one_name_are_refused(tmp_path: Path, name: str, expected: str) -> None:
    other = '[connections.other]\nplatform = "recipe"\nrecipe = "other.toml"\nbase_url = "https://x.example"\n'
    file = configured(tmp_path, settings=other)
    (tmp_path / "other.toml").write_text(TEXT.replace('name = "lists"', f'name = "{name}"'), encoding="utf-8")
    with pytest.raises(ConfigError, match=expected):
        load_config(str(file))


def test_every_recipe_of_the_box_is_right_and_has_the_name_of_its_file() -> None:
    assert "amplitude" in box_names()
    for name in box_names():
        recipe = find_recipe(name)
        assert recipe.name == name
        assert len(box_text(name).rstrip().splitlines()) <= 40, name
        for kind in recipe.kinds:
            assert kind_model(f"{name}.{kind}") is not None
        assert {f"{name}.{kind}" for kind in recipe.kinds} <= set(kind_names.kind_names())


def test_form_of_the_console_has_the_fields_of_the_recipe(tmp_path: Path) -> None:
    load_config(str(configured(tmp_path)))
    assert kinds_of("recipe:lists") == ["lists.users"]
    assert kinds_of("recipe:amplitude") == ["amplitude.cohort_users"]
    fields = {field.name: field for field in fields_of("lists.users")}
    assert (fields["export.list_id"].is_required, fields["export.limit"].default) == (True, 100)
    assert list(fields["export.mode"].choices) == ["fast", "full"]
    assert about_kind("lists.users") == "The users of one list."


def test_service_without_a_configuration_uses_a_recipe_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(TEXT, encoding="utf-8")
    assert use_recipe(tmp_path / "mine.toml") == ["lists.users"]
    assert request().platform == "recipe:lists"


def test_completion_offers_kinds_of_recipe_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORT_CONFIG", str(configured(tmp_path)))
    command = click.Command("list")
    found = kinds(click.Context(command), click.Argument(["kind"]), "")
    assert {"growingio.analysis", "amplitude.cohort_users", "lists.users"} <= set(found)


def test_schema_command_describes_kinds_of_recipe_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORT_CONFIG", str(configured(tmp_path)))
    for document in ("request", "openapi", "asyncapi"):
        kind_names._added.clear()
        printed = CliRunner().invoke(cli, ["schema", document])
        assert '"lists.users"' in printed.stdout, document
