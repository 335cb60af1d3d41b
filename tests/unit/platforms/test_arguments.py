"""The check of arguments before a call: what it accepts, and what it refuses with which message."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_worker.contract.wording import shown
from export_worker.errors import InvalidRequestError
from export_worker.platforms.arguments import body_problem, check_arguments, describe, find_operation
from export_worker.platforms.operations import Operation, Parameter

OPERATION = Operation(
    "user-cluster-add",
    "POST",
    "/open/{kind}/add",
    "adds",
    (
        Parameter("kind", "text", "path"),
        Parameter("projectId", "integer", "json", required=True),
        Parameter("clusterName", "text", "json", required=True, max_chars=24, pattern="[A-Za-z0-9_]+"),
        Parameter("catalog", "text", "json", choices=("cluster", "tag")),
        Parameter("level", "integer", "query", choices=("1", "2")),
        Parameter("routine", "boolean", "query"),
        Parameter("types", "list", "json", choices=("a", "b")),
        Parameter("qp", "object", "json"),
    ),
    body="json",
    aliases=("add",),
)
NEEDED = ["projectId=102", "clusterName=recent_7_days"]
CHECKED = {"projectId": 102, "clusterName": "recent_7_days"}

ONE = Operation(
    "detail",
    "GET",
    "/open/detail",
    "shows",
    (Parameter("id", "integer", "query"), Parameter("name", "text", "query"), Parameter("names", "list", "query")),
    one_of=(("id", "name"),),
)
ANY = Operation(
    "profile",
    "POST",
    "/graphql",
    "shows",
    (Parameter("tags", "list", "variables"), Parameter("properties", "list", "variables")),
    any_of=(("tags", "properties"),),
)
FREE = Operation("free", "POST", "/free", "takes any object", (Parameter("id", "integer", "query"),), body="json")


def problems(operation: Operation, texts: list[str], body: Any = None) -> dict[str, str]:
    """Returns the problems: parameter → message."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    with pytest.raises(InvalidRequestError) as caught:
        check_arguments(operation, texts, data)
    return {problem.field: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("texts", "arguments"),
    [
        ([], {}),
        (["kind=a=b/c "], {"kind": "a=b/c "}),
        (["catalog=tag"], {"catalog": "tag"}),
        (["level=2"], {"level": 2}),
        (["routine=true"], {"routine": True}),
        (["routine=false"], {"routine": False}),
        (["types=a"], {"types": ["a"]}),
        (["types=a", "types=b"], {"types": ["a", "b"]}),
        (['types=["b", "a"]'], {"types": ["b", "a"]}),
        (["types=[]"], {"types": []}),
        (['qp={"relation": "and", "filts": [1, null]}'], {"qp": {"relation": "and", "filts": [1, None]}}),
    ],
)
def test_texts_are_converted_to_typed_arguments(texts: list[str], arguments: dict[str, Any]) -> None:
    assert check_arguments(OPERATION, [*texts, *NEEDED]) == CHECKED | arguments


def test_arguments_are_in_order_of_table() -> None:
    names = list(check_arguments(OPERATION, ["types=a", "kind=x", *reversed(NEEDED)]))
    assert names == ["kind", "projectId", "clusterName", "types"]


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("projectId", "param", "'projectId' must be like NAME=VALUE"),
        ("=5", "param", "'=5' must be like NAME=VALUE"),
        ("clusterCatlog=x", "clusterCatlog", "unknown parameter; allowed: kind, projectId, clusterName, catalog"),
        ("level=x", "level", "must be a whole number, not "),
        ("level=1.0", "level", "must be a whole number, not "),
        ("level=\u0661", "level", "must be a whole number, not "),
        ("level= 1", "level", "must be a whole number, not "),
        ("level=12345678901234567890", "level", "must be a whole number, not "),
        ("level=3", "level", "must be one of 1, 2"),
        ("level=1 & level=2", "level", "is given 2 times, but is no list"),
        ("routine=True", "routine", "must be true or false"),
        ("routine=1", "routine", "must be true or false"),
        ("catalog=cluster_tag", "catalog", "must be one of cluster, tag"),
        ("catalog=", "catalog", "must be one of cluster, tag"),
        ("types=a & types=c", "types", "must be one of a, b"),
        ("types=[1]", "types", "must be a list of texts"),
        ("types=[", "types", "must be JSON"),
        ("qp=[]", "qp", "must be a JSON object"),
        ("qp={", "qp", "must be JSON"),
        ('qp={"a":NaN}', "qp", "must be JSON"),
        ("qp=" + "[" * 100_000, "qp", "must be JSON"),
        ("kind=", "kind", "must not be empty"),
        ("kind=..", "kind", "must not be a relative path"),
        ("kind=\udcff", "kind", "must be text in UTF-8"),
    ],
)
def test_wrong_text_is_refused_with_name_of_parameter(text: str, field: str, message: str) -> None:
    found = problems(OPERATION, [*text.split(" & "), *NEEDED])
    assert list(found) == [field]
    assert found[field].startswith(message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x" * 24, None),
        ("x" * 25, "must have at most 24 characters, not 25"),
        ("分群", "must match [A-Za-z0-9_]+"),
        ("a b", "must match [A-Za-z0-9_]+"),
        ("a\n", "must match [A-Za-z0-9_]+"),
        ("", "must not be empty"),
    ],
)
def test_text_above_limits_is_refused(name: str, message: str | None) -> None:
    texts = ["projectId=1", f"clusterName={name}"]
    if message is None:
        assert check_arguments(OPERATION, texts)["clusterName"] == name
    else:
        assert problems(OPERATION, texts) == {"clusterName": message}


def test_max_chars_counts_characters_not_bytes() -> None:
    operation = Operation("o", "POST", "/o", "", (Parameter("name", "text", "query", max_chars=2),))
    assert check_arguments(operation, ["name=分群"]) == {"name": "分群"}


def test_number_or_list_above_limits_is_refused() -> None:
    operation = Operation(
        "users",
        "GET",
        "/users",
        "",
        (
            Parameter("limit", "integer", "query", maximum=1000),
            Parameter("properties[]", "list", "query", required=True, max_items=2),
        ),
    )
    fine = check_arguments(operation, ["limit=1000", "properties[]=a", "properties[]=b"])
    assert fine == {"limit": 1000, "properties[]": ["a", "b"]}
    assert problems(operation, ["limit=1001", 'properties[]=["a", "b", "c"]']) == {
        "limit": "must be at most 1000",
        "properties[]": "must have at most 2 items, not 3",
    }
    assert problems(operation, ["properties[]=[]"]) == {"properties[]": "must not be empty"}
    assert [describe(parameter) for parameter in operation.parameters] == [
        "integer, at most 1000",
        "list of texts, at most 2 items",
    ]


def test_all_problems_are_reported_together() -> None:
    found = problems(OPERATION, ["level=x", "unknown=1", "catalog=z"])
    assert list(found) == ["level", "unknown", "catalog", "projectId", "clusterName"]
    assert found["projectId"] == "is required: integer"
    assert found["clusterName"] == "is required: text, at most 24 characters, like [A-Za-z0-9_]+"


@pytest.mark.parametrize("texts", [["id=1"], ["name=n"], ["id=1", "names=x"]])
def test_one_parameter_of_one_of_group_is_accepted(texts: list[str]) -> None:
    assert check_arguments(ONE, texts)


@pytest.mark.parametrize("texts", [[], ["id=1", "name=n"], ["names=x"]])
def test_none_or_two_parameters_of_one_of_group_are_refused(texts: list[str]) -> None:
    assert problems(ONE, texts) == {"id or name": "exactly one of them is needed"}


def test_any_of_group_needs_at_least_one_parameter() -> None:
    assert check_arguments(ANY, ["tags=t", "properties=p"]) == {"tags": ["t"], "properties": ["p"]}
    assert check_arguments(ANY, ["properties=p"]) == {"properties": ["p"]}
    assert problems(ANY, []) == {"tags or properties": "at least one of them is needed"}


def test_body_gives_same_arguments_as_texts() -> None:
    fields = CHECKED | {"catalog": "tag", "types": ["a", "b"], "qp": {"x": [1]}}
    assert check_arguments(OPERATION, ["kind=x"], json.dumps(fields).encode()) == {"kind": "x"} | fields


def test_texts_and_body_are_merged() -> None:
    assert check_arguments(OPERATION, NEEDED, b'\xef\xbb\xbf{"qp": {}}') == CHECKED | {"qp": {}}


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"qp": "text"}, "qp", "must be a JSON object"),
        ({"types": "a"}, "types", "must be a list of texts"),
        ({"types": ["c"]}, "types", "must be one of a, b"),
        ({"catalog": None}, "catalog", "must be text in quotes, not "),
        ({"catalog": 1}, "catalog", "must be text in quotes, not "),
        ({"projectId": 102}, "projectId", "is given twice: as --param and in the body"),
        ({"level": 1}, "body.level", "does not belong in the body; give it as --param"),
        ({"clusterCatlog": "x"}, "body.clusterCatlog", "unknown field; allowed: projectId, clusterName, catalog"),
    ],
)
def test_wrong_field_of_body_is_refused_with_its_name(fields: dict[str, Any], field: str, message: str) -> None:
    found = problems(OPERATION, NEEDED, fields)
    assert list(found) == [field]
    assert found[field].startswith(message)


@pytest.mark.parametrize("value", ["102", 102.0, True, None, [102]])
def test_body_value_of_other_type_than_integer_is_refused(value: Any) -> None:
    assert problems(OPERATION, NEEDED[1:], {"projectId": value}) == {
        "projectId": f"must be a whole number, not {shown(value)}"
    }


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"qp": NaN}', b"[" * 100_000])
def test_body_that_is_no_object_is_refused(body: bytes) -> None:
    assert problems(OPERATION, NEEDED, body) == {"body": "must be a JSON object"}


def test_body_in_another_encoding_than_utf8() -> None:
    expected = "is not text in UTF-8 (byte 1); save the file as UTF-8"
    assert problems(OPERATION, NEEDED, b"\xff{}") == {"body": expected}
    assert check_arguments(OPERATION, NEEDED, '{"qp": {}}'.encode("utf-16")) == CHECKED | {"qp": {}}


TWICE = Operation(
    "update-by-name",
    "POST",
    "/open/update",
    "ThinkingData's project is sent in the query string and in the body",
    (
        Parameter("projectId", "integer", "query", required=True),
        Parameter("name", "text", "query", required=True),
        Parameter("projectId", "integer", "json", required=True),
    ),
    body="json",
)


@pytest.mark.parametrize(
    ("texts", "body"),
    [
        (["projectId=1"], None),
        (["projectId=1"], b"{}"),
        ([], b'{"projectId": 1}'),
        (["projectId=1"], b'{"projectId": 1}'),
    ],
)
def test_parameter_with_two_locations_may_be_given_once_or_twice(texts: list[str], body: bytes | None) -> None:
    assert check_arguments(TWICE, ["name=n", *texts], body) == {"projectId": 1, "name": "n"}


def test_parameter_with_two_locations_must_have_one_value() -> None:
    found = problems(TWICE, ["name=n", "projectId=1"], {"projectId": 2})
    assert found == {"projectId": "differs between --param and the body"}
    assert problems(TWICE, ["name=n"], {}) == {"projectId": "is required: integer"}
    assert problems(TWICE, ["name=n"], {"name": "n", "projectId": 1}) == {
        "body.name": "does not belong in the body; give it as --param"
    }


def test_operation_without_json_parameters_accepts_any_object() -> None:
    assert check_arguments(FREE, ["id=1"], b'{"a": [1], "b": null}') == {"id": 1, "a": [1], "b": None}
    assert problems(FREE, [], {"id": 1}) == {"body.id": "does not belong in the body; give it as --param"}


@pytest.mark.parametrize(
    ("body", "given", "message"),
    [
        ("none", True, "body: is not accepted: user takes none"),
        ("none", False, None),
        ("csv", False, "body: is required: user takes CSV"),
        ("csv", True, None),
        ("json", False, None),
        ("json", True, None),
    ],
)
def test_body_problem_reports_unexpected_or_missing_body(body: Any, given: bool, message: str | None) -> None:
    found = body_problem(Operation("user", "POST", "/user", "", body=body), given=given)
    assert (str(found) if found else None) == message


def test_find_operation_finds_name_and_alias() -> None:
    operations = {"user-cluster-add": OPERATION, "detail": ONE}
    assert find_operation(operations, "user-cluster-add") is OPERATION
    assert find_operation(operations, "add") is OPERATION
    with pytest.raises(InvalidRequestError, match=r"unknown operation 'drop'; known: detail, user-cluster-add"):
        find_operation(operations, "drop")


def test_describe_lists_type_and_choices() -> None:
    assert describe(Parameter("a", "list", "query", choices=("x", "y"))) == "list of texts, one of x, y"
    assert describe(Parameter("a", "boolean", "query")) == "true or false"


@given(st.lists(st.text(max_size=40), max_size=6), st.none() | st.binary(max_size=60))
def test_random_input_is_accepted_or_refused_and_never_crashes(texts: list[str], body: bytes | None) -> None:
    for operation in (OPERATION, ONE, ANY, FREE):
        with suppress(InvalidRequestError):
            arguments = check_arguments(operation, texts, body)
            assert operation is FREE or arguments.keys() <= {parameter.name for parameter in operation.parameters}
