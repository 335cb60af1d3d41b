"""The samples of a recipe have to fit it: a real answer of the API shows a mistake before any check has run."""

import re

import pytest

from export_worker.errors import ConfigError
from export_worker.platforms.recipe_check.calls import call_problems
from export_worker.platforms.recipe_check.samples import Answers
from export_worker.recipes.reading import read_recipe

TEXT = """
name = "tiny"
title = "A small API."
documentation = "https://api.example.com/docs"
[kinds.users]
title = "All users."
submit = { method = "POST", path = "/exports", id = "job.id", keep = { shard = "shard" } }
poll = { path = "/exports/{operation_id}", stage = "state", done = ["done"], failed = ["failed"] }
result = { links = "files[].url" }
example.submit = '{"job": {"id": 7, "next": null}, "shard": "a"}'
example.running = '{"state": "queued"}'
example.done = '{"state": "done", "files": [{"url": "https://files.example.com/1.csv"}]}'
example.failed = '{"state": "failed"}'
"""


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ('done = ["done"]', 'done = ["Done"]', "example.done: its state must be one of poll.done, not done"),
        (
            'failed = ["failed"]',
            'failed = ["error"]',
            "example.failed: its state must be one of poll.failed, not failed",
        ),
        (
            'failed = ["failed"]',
            'failed = ["failed", "queued"]',
            "example.running: its state must be a state that no list",
        ),
        (', failed = ["failed"]', "", "example.failed: its state must be one of poll.failed, not failed"),
        ('stage = "state"', 'stage = "status"', "example.running: it has no state at status"),
        ('id = "job.id"', 'id = "id"', "example.submit: it has no id at id"),
        ('shard = "shard"', 'shard = "shad"', "example.submit: it has no shard at shad"),
        ("files[].url", "files[].href", "example.done: it has no link at files[].href"),
        ("files[].url", "file", "example.done: it has no link at file"),
    ],
    ids=lambda text: re.sub(r"\W+", " ", text)[:30],
)
def test_sample_that_the_recipe_does_not_fit_is_named(right: str, wrong: str, expected: str) -> None:
    Answers(read_recipe(TEXT, "tiny.toml"), "users")
    with pytest.raises(ConfigError) as caught:
        Answers(read_recipe(TEXT.replace(right, wrong, 1), "tiny.toml"), "users")
    assert any(problem.startswith(f"kinds.users.{expected}") for problem in caught.value.problems), caught.value


def test_sample_with_several_files_has_a_link_of_the_played_api_for_each() -> None:
    two = TEXT.replace('1.csv"}]', '1.csv"}, {"url": "https://files.example.com/2.csv"}]')
    answers = Answers(read_recipe(two, "tiny.toml"), "users")
    assert answers.files == 2
    assert answers.poll("done", ["/a", "/b"])["files"] == [{"url": "/a"}, {"url": "/b"}]


def test_links_that_are_computed_are_named() -> None:
    computed = TEXT.replace("files[].url", "files[].join('', [url, '?raw'])")
    with pytest.raises(ConfigError, match=r"example.done: files.* computes its links, so the check cannot play them"):
        Answers(read_recipe(computed, "tiny.toml"), "users")


def test_stage_that_is_computed_is_played_with_a_sample_of_an_unknown_one_only() -> None:
    computed = TEXT.replace('stage = "state"', "stage = \"join('', [state])\"")
    assert not Answers(read_recipe(computed, "tiny.toml"), "users").has_unknown_stage
    sample = computed + """example.unknown = '{"state": "moonstruck"}'\n"""
    answers = Answers(read_recipe(sample, "tiny.toml"), "users")
    assert answers.has_unknown_stage
    assert answers.poll("running", [], "MOONSTRUCK") == {"state": "moonstruck"}


def test_answer_that_cannot_be_made_names_the_expression_that_is_the_cause() -> None:
    without = TEXT.replace("files[].url", "files[?url].url").replace("example.done", "example.request = {} #")
    expected = r"example.done: is needed for the check: no answer can be made in which files\[\?url\].url finds"
    with pytest.raises(ConfigError, match=expected):
        Answers(read_recipe(without, "tiny.toml"), "users")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("{ ids = \"{join(',', ids)}\" }", "kinds.users.submit: POST /exports: {join(',', ids)} cannot be evaluated"),
        ('{ x = "a-{note}" }', "kinds.users.submit: POST /exports: {note} finds nothing, but text is needed here"),
    ],
)
def test_request_that_needs_an_optional_field_is_named(query: str, expected: str) -> None:
    fields = 'fields.ids = { type = "list", optional = true, example = ["a"] }\n'
    fields += 'fields.note = { optional = true, example = "x" }\n'
    text = TEXT.replace("submit = { ", f"{fields}submit = {{ query = {query}, ")
    [problem] = call_problems(read_recipe(text, "tiny.toml"), "users")
    assert problem.startswith(expected)
    assert problem.endswith("if the optional fields are missing")
    right = TEXT.replace("submit = { ", f"{fields}submit = {{ query = {{ ids = \"{{ids && join(',', ids)}}\" }}, ")
    assert list(call_problems(read_recipe(right, "tiny.toml"), "users")) == []
