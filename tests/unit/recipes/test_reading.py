"""Reading a recipe: each problem has its file, its line and its field."""

import re

import pytest

from export_worker.errors import ConfigError
from export_worker.recipes.reading import read_recipe
from support.paths import ROOT

FILE = ROOT / "tests" / "data" / "recipes" / "lists.toml"
TEXT = FILE.read_text(encoding="utf-8")

WRONG = [
    ('name = "lists"', "name = lists", "lists.toml is not valid TOML: Invalid value (at line 2"),
    ('name = "lists"', 'name = "growingio"', "line 1: recipe: the name growingio belongs to a built-in platform"),
    ('type = "bearer"', 'type = "baerer"', "line 5: auth.type: must be one of basic, bearer"),
    ('type = "bearer"', 'type = "baerer"', "did you mean bearer?"),
    ('type = "bearer"', 'type = "basic", usr = "x"', "line 5: auth.usr: unknown; did you mean user?"),
    ("[kinds.users]", "[kind.users]", "line 12: kind: unknown; did you mean kinds?"),
    ("submit = {", "submt = {", "line 20: kinds.users.submt: unknown; did you mean submit?"),
    ("submit = {", "submt = {", "line 12: kinds.users.submit: is required"),
    ('"[a-z0-9]{1,8}"', '"[a-z0-9"', "line 14: kinds.users.fields.list_id.pattern: is no regular expression"),
    ('example = "vip"', 'example = "VIP"', "line 14: kinds.users.fields.list_id.example: must match [a-z0-9]{1,8}"),
    ("default = 100", 'default = "x"', 'line 16: kinds.users.fields.limit.default: must be a whole number, not "x"'),
    ("maximum = 1000", "maximum = 50", "line 16: kinds.users.fields.limit.default: must be at most 50, not 100"),
    ("fields.mode", "fields.copy", "line 17: kinds.users.fields.copy: the name copy is reserved"),
    ("fields.mode", "fields.Mode", "line 17: kinds.users.fields.Mode: must be 1 to 48 lower-case letters"),
    ('id = "id" }', 'id = "id[" }', "line 20: kinds.users.submit.id: 'id[' is not a JMESPath expression"),
    ('"{columns}"', '"{colums}"', "line 20: kinds.users.submit.json.columns: {colums} is not known here; did you mean"),
    ('done = ["done"]', "done = []", "line 21: kinds.users.poll.done: must have at least 1 item, not 0"),
]

TINY = """
name = "tiny"
title = "A small API."
documentation = "https://api.example.com/docs"
auth = { type = "bearer" }
[kinds.users]
title = "The users of one list."
fields.list_id = { type = "integer", example = 3 }
submit = { path = "/exports", json = { list = "{list_id}" }, query = {}, id = "id" }
poll = { path = "/exports/{operation_id}", stage = "state", done = ["done"] }
result = { path = "/exports/{operation_id}/file", name = "users.csv" }
"""
IMPOSSIBLE = [
    ('json = { list = "{list_id}" }, ', "", "submit: method is required, because the request has no body"),
    ('id = "id"', f'id = "{"(" * 500}id{")" * 500}"', "submit.id: the expression is nested too deeply"),
    ('id = "id"', 'id = "lenght(id)"', "there is no function lenght; did you mean length?"),
    ('id = "id"', 'id = "length(id, id)"', "length takes 1 arguments, not 2"),
    ('id = "id"', 'id = "not_null()"', "not_null takes 1 arguments or more, not 0"),
    ('id = "id"', 'id = "ids[::0]"', "the step of a slice cannot be 0"),
    ('"{list_id}"', f"{'[' * 90}{']' * 90}", "submit.json: must have at most 32 tables and lists within each other"),
    ('"{list_id}"', "2020-01-01", "submit.json: must be text in quotes, not a date or time"),
    ('"{list_id}"', "nan", "submit.json: must be a finite number"),
    ("query = {}", "query = { x = { y = 1 } }", "submit.query.x: must be a text, a number, a boolean or a list"),
    ('type = "integer", example = 3', 'pattern = "(?i)a"', "list_id.pattern: is no regular expression: global flags"),
    ("example = 3", 'pattern = "a"', "list_id.pattern: is for fields of type text or list, not integer"),
    ("example = 3", "minimum = 5, maximum = 3", "list_id.maximum: must be at least minimum"),
    ("example = 3", "minimum = 0.5", "list_id.minimum: must be a whole number from"),
    (
        'done = ["done"]',
        'done = ["done"], failed = ["done"]',
        "poll: done, failed and no_data must name each state once",
    ),
    ('path = "/exports/{operation_id}/file"', 'links = "l", query = { a = 1 }', "result: query needs path"),
    ('name = "users.csv"', 'name = "users.csv", expires_s = 9', "result: expires_s needs links"),
    ('path = "/exports/{operation_id}/file"', 'pages = { path = "/u", source = "csv", next = "n" }', "have no next"),
    (
        'path = "/exports/{operation_id}/file"',
        'pages = { path = "/u", next = "n" }',
        "{cursor} and next need each other",
    ),
    ('path = "/exports/{', 'path = "/\\u0001/{', "poll.path: must begin with / and have ASCII"),
    ('type = "bearer"', 'type = "oauth", token_url = "/{options.x"', "auth.token_url: an opening brace has no closing"),
    ('type = "bearer"', 'type = "oauth", token_url = "/{options.x}"', "auth.token_url: {options.x} is not known here"),
    ('type = "bearer"', 'type = "signer", scheme = "x"', "auth.type: must be one of aliyun, datafinder"),
    ("[kinds", 'headers = { X = "a\\nb" }\n[kinds', "headers.X: must be printable ASCII"),
]


@pytest.mark.parametrize(("right", "wrong", "expected"), IMPOSSIBLE, ids=lambda text: re.sub(r"\W+", " ", text)[:30])
def test_what_could_never_work_is_refused(right: str, wrong: str, expected: str) -> None:
    assert read_recipe(TINY, "tiny.toml").name == "tiny"
    found = problems(TINY.replace(right, wrong, 1))
    assert any(expected in problem for problem in found), found


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read_recipe(text, "lists.toml")
    return caught.value.problems


@pytest.mark.parametrize(("right", "wrong", "expected"), WRONG, ids=lambda text: re.sub(r"\W+", " ", text)[:30])
def test_wrong_recipe_is_refused_with_file_line_and_field(right: str, wrong: str, expected: str) -> None:
    assert right in TEXT
    found = problems(TEXT.replace(right, wrong, 1))
    assert any(expected in problem for problem in found), found
    assert all(problem.startswith("lists.toml") for problem in found)


def test_every_problem_of_a_recipe_is_reported() -> None:
    text = TEXT.replace('type = "bearer"', 'type = "baerer"').replace("submit = {", "submt = {")
    assert len(problems(text)) == 3


def test_nested_brackets_are_refused() -> None:
    assert "nested too deeply" in problems("x = " + "[" * 30_000)[0]


def test_right_recipe_is_read() -> None:
    recipe = read_recipe(TEXT, "lists.toml")
    assert (recipe.name, list(recipe.kinds), recipe.limits.max_in_flight) == ("lists", ["users"], 3)
