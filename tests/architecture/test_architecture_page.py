"""The architecture page names code that exists, lists all rooms, and has complete decisions and a glossary."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from architecture.test_rooms import FLOORS
from support.deployment import read
from support.documents import table_rows
from support.paths import ROOT

PAGE = "worker/ARCHITECTURE.md"
HOMES = {"export_worker": ROOT / "worker", "export_producers": ROOT / "producers"}
STEPS = ("Enqueue", "Claim", "Submit", "Poll", "Transfer", "Commit", "Event")
"""What the walk through one export must show, whatever else it shows."""
DECISION_PARTS = ["Context", "Decision", "Consequence"]

REFERENCE = re.compile(r"`((?:export_worker|export_producers)/[\w/]+\.(?:py|lua))(?::([\w.]+))?`")


def references() -> list[tuple[str, str]]:
    """Returns each path that the page names, with the name behind the colon or an empty string."""
    return REFERENCE.findall(read(PAGE))


def file_of(path: str) -> Path:
    return HOMES[path.partition("/")[0]] / path


@cache
def names_in(path: Path) -> set[str]:
    """Returns all functions and classes of a module, methods as `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{each.name}"
                for each in node.body
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return found


@pytest.mark.parametrize(("path", "name"), sorted(set(references())))
def test_named_function_exists(path: str, name: str) -> None:
    file = file_of(path)
    assert file.exists(), path
    if name:
        assert name in names_in(file), f"{path} has no {name}"


def test_every_mentioned_source_file_is_checked() -> None:
    mentioned = set(re.findall(r"export_(?:worker|producers)/[\w/]+\.(?:py|lua)", read(PAGE)))
    assert {path for path, _ in references()} == mentioned
    assert len(mentioned) > 20


def test_walk_through_one_export_has_every_step_in_order() -> None:
    section = read(PAGE).partition("## One export, step by step\n")[2].partition("\n## ")[0]
    steps = re.findall(r"^\d+\. \*\*(.+?)\.\*\*(.*(?:\n   .*)*)", section, re.MULTILINE)
    titles = [title for title, _ in steps]
    assert [title for title in titles if title in STEPS] == list(STEPS)
    assert all(REFERENCE.search(text) for _, text in steps), "a step without file and function"


def test_table_of_rooms_equals_the_floors_of_the_architecture_test() -> None:
    rows = [re.findall(r"`(\w+)`", rooms) for _, rooms, _ in table_rows(PAGE, "Floor", "Rooms", "Purpose")]
    assert [set(rooms) for rooms in reversed(rows)] == [set(floor) for floor in FLOORS]
    numbers = [int(number) for number, _, _ in table_rows(PAGE, "Floor", "Rooms", "Purpose")]
    assert numbers == list(range(len(FLOORS), 0, -1))


def test_every_decision_has_context_decision_and_consequence() -> None:
    sections = re.split(r"^## ", read(PAGE), flags=re.MULTILINE)
    decisions = [
        decision
        for section in sections
        if section.startswith("Decisions: ")
        for decision in re.split(r"^### ", section, flags=re.MULTILINE)[1:]
    ]
    assert len(decisions) > 20
    for decision in decisions:
        assert re.findall(r"^- \*\*(\w+)\.\*\*", decision, re.MULTILINE) == DECISION_PARTS, decision


def test_glossary_defines_each_word_once() -> None:
    words = [word for cell, _ in table_rows(PAGE, "Word", "Meaning") for word in re.findall(r"[A-Za-z][\w -]*", cell)]
    assert len(words) > 30
    assert len(words) == len(set(words))
