"""The command `recipe`: what it lists, and how `recipe check` reports right, wrong and failing recipes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from export_worker.recipes.names import box_names
from support.paths import ROOT

TEXT = (ROOT / "tests" / "data" / "recipes" / "lists.toml").read_text(encoding="utf-8")


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs `export-worker recipe`."""
    command = [sys.executable, "-m", "export_worker", "recipe", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_list_names_every_recipe_of_the_box_with_its_kinds() -> None:
    ran = run("list", "--json")
    found = {recipe["name"]: recipe for recipe in json.loads(ran.stdout)}
    assert list(found) == list(box_names())
    [kind] = found["amplitude"]["kinds"]
    assert (kind["kind"], kind["fields"][0]["name"], kind["fields"][0]["required"]) == (
        "amplitude.cohort_users",
        "cohort_id",
        True,
    )
    plain = run("list").stdout
    assert all(f"{name}: " in plain for name in box_names())


@pytest.mark.parametrize(
    ("right", "wrong", "status", "expected"),
    [
        ("", "", 0, "ok      lists.users poll with unknown stage returns pending"),
        ("message = ", "retry = 'id || state'\nmessage = ", 1, "FAILED  lists.users export is submitted polled"),
        ("submit = {", "submt = {", 2, "line 20: kinds.users.submt: unknown; did you mean submit?"),
        (
            ', example = "vip"',
            "",
            2,
            "line 14: kinds.users.fields.list_id.example: is needed for the check",
        ),
        ('id = "id" }', "id = \"join('-', [a, b])\" }", 2, "kinds.users.example.submit: is needed for the check"),
    ],
    ids=["right", "failing", "wrong", "no-example", "no-sample"],
)
def test_check_reports_by_its_exit_status(tmp_path: Path, right: str, wrong: str, status: int, expected: str) -> None:
    assert right in TEXT
    file = tmp_path / "lists.toml"
    file.write_text(TEXT.replace(right, wrong, 1) if right else TEXT, encoding="utf-8")
    ran = run("check", str(file))
    assert ran.returncode == status, ran
    assert expected in ran.stdout + ran.stderr


def test_check_of_an_unknown_recipe_says_what_was_meant() -> None:
    ran = run("check", "amplitud", "--json")
    assert ran.returncode == 2
    assert "did you mean amplitude?" in json.loads(ran.stdout)["error"]["message"]


SAMPLES = """
name = "tiny"
title = "An API whose answers are known by samples."
documentation = "https://api.example.com/docs"
[kinds.users]
title = "All users."
submit = { method = "POST", path = "/exports", id = "id" }
poll = { path = "/exports/{operation_id}", stage = "jobState || 'UNKNOWN'", done = ["done"], failed = ["failed"] }
result = { links = "files[?url].url" }
example.unknown = '{"jobState": "resting"}'
example.done = '{"jobState": "done", "files": [{"url": "https://files.example/1.csv"}, {"url": "/2.csv"}]}'
"""


def test_samples_with_two_files_and_a_computed_state_are_played(tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(SAMPLES, encoding="utf-8")
    ran = run("check", str(file))
    assert ran.returncode == 0, ran
    assert "ok      tiny.users poll with unknown stage returns pending" in ran.stdout
    assert "poll.stage finds a state in every answer" in ran.stdout
