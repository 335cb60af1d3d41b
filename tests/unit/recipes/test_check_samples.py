"""The samples of a recipe have to fit it: a real answer of the API shows a mistake before any check has run."""

import re

import pytest

from export_worker.errors import ConfigError
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
