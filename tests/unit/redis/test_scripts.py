"""The convention of the Lua scripts: what they get, what they answer, and how both are encoded."""

import json
import re
from pathlib import Path

import pytest

from export_worker.redis.scripts import decode_document, encode_arguments, original_bytes
from support.paths import ROOT

FOLDERS = (ROOT / "worker/export_worker/redis/lua", ROOT / "producers/export_producers/lua")
SCRIPTS = sorted(path for folder in FOLDERS for path in folder.glob("*.lua"))
PARTS = {"clock", "breakers", "claim_control", "claim_transfer", "indexes", "keep", "rows", "statistics", "past"}
PARTS |= {"changes", "turns", "commit_next", "commit_end", "batches", "sharing"}
"""Files that Redis runs with another one, such as `claim.lua`, which documents the whole script."""


def test_arguments_are_one_json_object_without_the_fields_that_are_none() -> None:
    arguments: dict[str, object] = {
        "a": None,
        "b": 0,
        "c": "",
        "d": False,
        "limits": {},
        "text": '{"名": "值"}\x00\x7f\\',
    }
    assert json.loads(encode_arguments(arguments)) == {name: value for name, value in arguments.items() if name != "a"}


def test_number_of_52_bits_is_encoded_in_full() -> None:
    assert encode_arguments({"fence": 2**52 - 1}) == '{"fence":4503599627370495}'


def test_document_is_decoded_with_every_character() -> None:
    assert decode_document('{"s": "\\"\\/\\u0001\\u007f名\\ud83d\\ude00"}'.encode()) == {"s": '"/\x01\x7f名😀'}


def test_bytes_that_are_not_utf_8_survive_and_spare_the_other_fields() -> None:
    document = decode_document(b'{"damaged": "a\xff\xfe", "good": "\xe5\x90\x8d"}')
    assert document["good"] == "名"
    assert original_bytes(document["damaged"]) == b"a\xff\xfe"


@pytest.mark.parametrize("path", [path for path in SCRIPTS if path.stem not in PARTS], ids=lambda path: path.stem)
def test_every_script_documents_its_keys_argument_and_answer(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    header = source[: source.index("\nlocal args = cjson.decode(ARGV[1])\n")]
    assert all(line.startswith("--") for line in header.splitlines())
    assert all(f"\n-- {part}: " in header for part in ("KEYS", "ARGV[1]", "Answer"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_field_that_a_script_reads_is_documented(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    whole = f"{path.stem.partition('_')[0]}.lua" if path.stem.startswith("commit_") else "claim.lua"
    documented = (path.parent / whole).read_text(encoding="utf-8") if path.stem in PARTS else source
    header = documented[: documented.index("local args =")]
    read = set(re.findall(r"\bargs\.(\w+)", source))
    assert {name for name in read if not re.search(rf"\b{name}\b", header)} == set()
    others = set(re.findall(r"ARGV\[(\d)\]", source.replace(header, ""))) - {"1"}
    assert others == {number for number in others if f"ARGV[{number}]" in header}, "it reads what it does not document"


def test_documented_acl_allows_every_command_of_every_script() -> None:
    """An installation that follows the guide must not need another right after an update."""
    guide = (ROOT / "k8s" / "README.md").read_text(encoding="utf-8")
    (rule,) = re.findall(r"ACL SETUSER export-worker .*", guide)
    allowed = {word[1:].upper() for word in rule.split() if word.startswith("+")}
    called = {
        name: set(re.findall(r"redis\.call\('([A-Z]+)'", path.read_text(encoding="utf-8")))
        for name, path in ((path.stem, path) for path in SCRIPTS)
    }
    assert len(set.union(*called.values())) > 20, "the calls were not found"
    assert {name: missing for name, commands in called.items() if (missing := commands - allowed)} == {}
