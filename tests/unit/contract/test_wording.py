"""Messages in plain words: names that are meant, values that are shown, and values that may be secrets."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from export_worker.contract.names import did_you_mean, unknown_name
from export_worker.contract.wording import Pattern, plain_message, shown


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("buket", ["bucket", "prefix", "region"], "bucket"),
        ("base-url", ["base_url", "token"], "base_url"),
        ("baseUrl", ["base_url", "token"], "base_url"),
        ("BUCKET", ["bucket"], "bucket"),
        ("goi", ["gio", "sensors"], "gio"),
        ("colour", ["bucket", "prefix"], None),
        ("x" * 65, ["x" * 64], None),
        ("", ["bucket"], None),
        ("gio", [], None),
    ],
)
def test_similar_name_is_suggested(name: str, known: list[str], meant: str | None) -> None:
    assert did_you_mean(name, known) == (f"; did you mean {meant}?" if meant else "")


def test_unknown_name_is_reported_with_all_known_names() -> None:
    expected = "unknown connection 'goi'; did you mean gio?; known: gio, sensors"
    assert unknown_name("connection", "goi", ["sensors", "gio"]) == expected
    assert unknown_name("sink", "x", []) == "unknown sink 'x'; known: none is configured"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        (-3, "-3"),
        (10**30, "this large number"),
        pytest.param(10**5000, "this large number", id="5000 digits"),
        (float("inf"), "this large number"),
        (float("nan"), "nan"),
        ("many", '"many"'),
        ("中\n", '"中\\n"'),
        ("canary-S3cret", "a text of 13 characters"),
        (["canary"], "a list"),
        ({"canary": 1}, "a group of named values"),
    ],
)
def test_value_is_shown_unless_it_may_be_a_secret(value: Any, text: str) -> None:
    assert shown(value) == text


class Limits(BaseModel):
    name: Annotated[str, Pattern(r"^[a-z]{2}$", "must be two small letters, such as en")] = "en"


@pytest.mark.parametrize("name", ["e", "eng", "en\n", "\nen", "EN", ""])
def test_text_that_does_not_match_gets_the_rule_in_words(name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Limits(name=name)
    (detail,) = caught.value.errors()
    assert plain_message(detail, table="a table") == "must be two small letters, such as en"


def test_pattern_is_part_of_the_json_schema() -> None:
    schema = TypeAdapter(Limits).json_schema()["properties"]["name"]
    assert (schema["type"], schema["pattern"]) == ("string", "^[a-z]{2}$")


def test_reference_outside_of_a_secret_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int).validate_python("env:PORT")
    message = plain_message(caught.value.errors()[0], table="a table")
    assert message == (
        'must be a whole number, not "env:PORT"; env: and file: are read only where the setting is a secret'
    )
