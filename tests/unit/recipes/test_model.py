"""The language of recipes: what its models and templates accept, and what they say of mistakes."""

import tomllib
from importlib import resources
from typing import Any

import pytest
from pydantic import ValidationError

from export_worker.recipes.checks import problems_of
from export_worker.recipes.model import Recipe
from export_worker.recipes.templates import Template, TemplateError, expression, filled

MINIMAL = """
name = "tiny"
title = "A small API."
documentation = "https://api.example.com/docs"
base_url = "https://api.example.com"

[kinds.users]
title = "The users of one list."
fields.list_id = { type = "integer" }
submit = { path = "/exports", json = { list = "{list_id}" }, id = "id" }
poll = { path = "/exports/{operation_id}", stage = "state", done = ["done"] }
result = { path = "/exports/{operation_id}/file", name = "users.csv" }
"""
BOX = [file for file in resources.files("export_worker.recipes.box").iterdir() if file.name.endswith(".toml")]


def recipe(text: str) -> Recipe:
    return Recipe.model_validate(tomllib.loads(text))


@pytest.mark.parametrize("file", BOX, ids=lambda file: file.name)
def test_recipe_of_the_box_is_valid_named_as_its_file_and_short(file: Any) -> None:
    text = file.read_text()
    read = recipe(text)
    assert f"{read.name}.toml" == file.name
    assert problems_of(read) == []
    assert len(text.splitlines()) <= 40


def test_simplest_recipe_has_ten_lines_and_gets_defaults() -> None:
    read = recipe(MINIMAL)
    assert len([line for line in MINIMAL.splitlines() if line]) <= 11
    assert read.kinds["users"].submit.method == "POST"
    assert read.auth.type == "none"


@pytest.mark.parametrize(
    ("old", "new", "where", "message"),
    [
        ("{list_id}", "{list_idd}", ("kinds", "users", "submit", "json", "list"), "did you mean list_id"),
        ("/exports/{operation_id}/", "/exports/{operation}/", ("kinds", "users", "result", "path"), "operation_id"),
        ('"/exports"', '"/exports/{operation_id}"', ("kinds", "users", "submit", "path"), "is not known here"),
        ('"users.csv"', '"{options.name}.csv"', ("kinds", "users", "result", "name"), "options.name"),
    ],
)
def test_template_that_names_nothing_is_found(old: str, new: str, where: tuple[str, ...], message: str) -> None:
    [(address, problem)] = problems_of(recipe(MINIMAL.replace(old, new)))
    assert address == where
    assert message in problem


@pytest.mark.parametrize(
    ("old", "new", "where", "message"),
    [
        ('id = "id"', 'id = "id["', ("kinds", "users", "submit", "id"), "is not a JMESPath expression"),
        ("{list_id}", "{list_id", ("kinds", "users", "submit", "json"), "no closing brace"),
        ('"/exports"', '"exports"', ("kinds", "users", "submit", "path"), "must begin with /"),
        (
            'name = "users.csv"',
            'name = "users.csv", links = "url", later = true',
            ("kinds", "users"),
            "cannot have poll",
        ),
        ('name = "tiny"', 'name = "growingio"', (), "built-in platform"),
        ("fields.list_id", "fields.page", ("kinds", "users"), "no field can have the name page"),
    ],
)
def test_wrong_recipe_is_refused_at_its_address(old: str, new: str, where: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        recipe(MINIMAL.replace(old, new))
    [detail] = caught.value.errors()
    assert detail["loc"] == where
    assert message in detail["msg"]


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"list": "{list_id}"}, {"list": 7}),
        ({"a": "{missing}", "b": [1, "{missing}", "x-{list_id}"]}, {"b": [1, "x-7"]}),
        ({"fields": "{names[].{name: @}}"}, {"fields": [{"name": "a"}, {"name": "b"}]}),
        ({"keys": "{join(',', names)}"}, {"keys": "a,b"}),
        ({"flag": "{yes}", "text": "is {yes}"}, {"flag": True, "text": "is true"}),
    ],
)
def test_filled_template_keeps_types_and_leaves_out_what_is_missing(tree: Any, expected: Any) -> None:
    assert filled(tree, {"list_id": 7, "names": ["a", "b"], "yes": True}) == expected


def test_missing_value_within_a_text_is_an_error_without_values() -> None:
    with pytest.raises(TemplateError, match=r"\{b\} finds nothing, but text is needed here"):
        filled("x-{b}", {"a": "secret"})
    with pytest.raises(TemplateError) as caught:
        filled("{join(',', a)}", {"a": "secret"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("a.b && c[?d == 'x'].e", {"a", "c"}),
        ("sort_by(a, &b)[0].c | [0]", {"a"}),
        ("options.region || keep.file", {"options.region", "keep.file"}),
        ("{x: a, y: @}", {"a"}),
    ],
)
def test_names_of_an_expression_are_those_of_the_document(source: str, names: set[str]) -> None:
    assert expression(source).names == names


def test_text_of_a_template_encodes_values_only() -> None:
    assert Template("/lists/{a}/x").text({"a": "b/c"}, lambda text: text.replace("/", "%2F")) == "/lists/b%2Fc/x"
