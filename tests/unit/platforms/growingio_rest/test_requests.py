"""Requests for GrowingIO REST: allowed keys in paths, properties and file formats."""

import json
from typing import Any

import pytest

from export_worker.contract.parsing import parse_request
from export_worker.contract.request import PROPERTIES_MAX, GrowingioUserTagUsers
from export_worker.errors import InvalidRequestError


def parsed(**fields: Any) -> GrowingioUserTagUsers:
    request = {"connection": "rest", "export": {"kind": "growingio.user_tag_users", "tag_key": "tag_rfm", **fields}}
    export = parse_request(json.dumps(request)).export
    assert isinstance(export, GrowingioUserTagUsers)
    return export


@pytest.mark.parametrize("key", ["tag_rfm", "a", "_-", "流失用户", "a.b", "a:b$c", "a&b=c;d", "a..b", "x" * 128])
def test_key_that_stays_one_path_segment_is_accepted(key: str) -> None:
    assert parsed(tag_key=key).tag_key == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".",
        "..",
        ".a",
        "a/b",
        "/",
        "a\\b",
        "%2F",
        "a%2e",
        "a?b",
        "a#b",
        "a b",
        "a\tb",
        "a\x7f",
        "a\x85",
        "x" * 129,
        1,
    ],
)
def test_key_that_could_change_the_path_is_refused(key: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parsed(tag_key=key)
    assert [problem.field for problem in caught.value.problems] == ["export.tag_key"]


def test_more_than_sixty_properties_are_refused() -> None:
    assert len(parsed(properties=["p"] * PROPERTIES_MAX).properties or ()) == 60
    with pytest.raises(InvalidRequestError, match=r"export\.properties"):
        parsed(properties=["p"] * (PROPERTIES_MAX + 1))


@pytest.mark.parametrize("file_format", [None, "csv", "json"])
def test_csv_header_type_is_refused_for_json(file_format: str | None) -> None:
    fields = {"csv_header_type": "name", **({} if file_format is None else {"file_format": file_format})}
    if file_format == "json":
        with pytest.raises(InvalidRequestError, match="csv_header_type: is allowed only with file_format csv"):
            parsed(**fields)
    else:
        assert parsed(**fields).csv_header_type == "name"
