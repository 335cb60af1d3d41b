"""What a request for GrowingIO REST may name: keys in paths, properties, file formats."""

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
def test_key_may_be_anything_that_stays_one_segment_of_a_path(key: str) -> None:
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
def test_key_that_could_become_another_path_is_refused(key: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parsed(tag_key=key)
    assert [problem.field for problem in caught.value.problems] == ["export.tag_key"]


def test_sixty_properties_are_the_most() -> None:
    assert len(parsed(properties=["p"] * PROPERTIES_MAX).properties or ()) == 60
    with pytest.raises(InvalidRequestError, match=r"export\.properties"):
        parsed(properties=["p"] * (PROPERTIES_MAX + 1))


@pytest.mark.parametrize("file_format", [None, "csv", "json"])
def test_header_type_is_for_csv(file_format: str | None) -> None:
    fields = {"csv_header_type": "name", **({} if file_format is None else {"file_format": file_format})}
    if file_format == "json":
        with pytest.raises(InvalidRequestError, match="csv_header_type: is allowed only with file_format csv"):
            parsed(**fields)
    else:
        assert parsed(**fields).csv_header_type == "name"
