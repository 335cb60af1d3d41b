"""The statement that lists users, the readers for the lines of a response, and the lines of the file."""

import json
from typing import Any

import pytest

from export_worker.errors import DownloadInvalidError, PlatformRefusedError
from export_worker.platforms.sensorsdata.sql import EnvelopeLines, JsonLines, LineReader, Listing, TextLines, identifier
from export_worker.platforms.sensorsdata.users import csv_line, json_line

LISTING = Listing("users", "id", ("id", "first_id"), "user_group_vip", "/*MAX_QUERY_EXECUTION_TIME=1800*/")
ROW = {"id": 1, "name": "“x”"}


def rows(reader: LineReader, *lines: Any) -> list[dict[str, Any]]:
    found = [row for line in lines for row in reader.rows(line if isinstance(line, bytes) else dumps(line))]
    reader.end()
    return found


def dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def envelope(**data: Any) -> dict[str, Any]:
    return {"code": "SUCCESS", "data": data, "request_id": "r"}


def test_statement_of_next_page_starts_after_last_key() -> None:
    head = "SELECT `id`, `first_id` FROM `users` WHERE `user_group_vip` = 1"
    tail = "ORDER BY `id` LIMIT 100 /*MAX_QUERY_EXECUTION_TIME=1800*/"
    assert LISTING.statement(None, 100) == f"{head} {tail}"
    assert LISTING.statement(-5, 100) == f"{head} AND `id` > -5 {tail}"


def test_statement_without_pages_has_no_order_and_no_limit() -> None:
    listing = Listing("rawdata.users", "id", ("id",), "user_group_vip", "")
    assert listing.statement(None, 0) == "SELECT `id` FROM `rawdata`.`users` WHERE `user_group_vip` = 1"


@pytest.mark.parametrize("name", ["", "a`b", "`", "a\nb", "a\x00", "\x7f"])
def test_unquotable_name_is_refused(name: str) -> None:
    with pytest.raises(PlatformRefusedError):
        identifier(name)


@pytest.mark.parametrize("name", ["$city", "a b", "a'; DROP TABLE users; --", '"', "中文"])
def test_other_name_is_quoted(name: str) -> None:
    assert identifier(name) == f"`{name}`"


@pytest.mark.parametrize(("value", "key"), [(5, 5), ("-7", -7), (2**63, 2**63)])
def test_key_of_row_is_whole_number(value: Any, key: int) -> None:
    assert LISTING.key_of({"id": value}) == key


@pytest.mark.parametrize("value", [None, "", "a", "1 OR 1=1", 1.5, True, [], "\uff11", "1\n"])
def test_key_that_is_no_whole_number_raises_invalid(value: Any) -> None:
    with pytest.raises(DownloadInvalidError):
        LISTING.key_of({"id": value})


def test_json_lines_are_read() -> None:
    assert rows(JsonLines("id"), ROW, b"", b" \r", {"id": 2}) == [ROW, {"id": 2}]
    assert rows(JsonLines("id")) == []


@pytest.mark.parametrize("line", [b'{"error": "no such column"}', b"[1]", b"oops", b"{", b"\xff", b"[" * 100_000])
def test_json_line_that_is_no_row_raises_invalid(line: bytes) -> None:
    with pytest.raises(DownloadInvalidError):
        rows(JsonLines("id"), ROW, line)


def test_text_lines_are_read() -> None:
    found = rows(TextLines(["id"]), b"id\tname", "1\t“x”\r".encode(), b"", b'2\t"open')
    assert found == [{"id": "1", "name": "“x”"}, {"id": "2", "name": '"open'}]
    assert rows(TextLines(["id"]), b"id\tname") == []


@pytest.mark.parametrize(
    "lines", [[], [b"error: no such column"], [b"id\tname", b"1"], [b"id", b"1\t2"], [b"id", b"\xff"]]
)
def test_text_that_is_no_table_raises_invalid(lines: list[bytes]) -> None:
    with pytest.raises(DownloadInvalidError):
        rows(TextLines(["id"]), *lines)


def test_envelope_with_one_row_or_several_is_read() -> None:
    columns = ["id", "name"]
    found = rows(
        EnvelopeLines(),
        envelope(columns=columns, types=["BIGINT", "VARCHAR"], data=[1, "a"]),
        envelope(columns=columns, data=[[2, "b"], [3, None]]),
        envelope(columns=columns, data=[]),
        {"code": "SUCCESS"},
    )
    assert found == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": None}]


def test_envelope_without_columns_uses_previous_columns() -> None:
    reader = EnvelopeLines(["id", "name"])
    assert rows(reader, envelope(data=[1, "a"])) == [{"id": 1, "name": "a"}]
    assert rows(reader, envelope(columns=["id"], data=[2]), envelope(data=[[3, "c"]])) == [
        {"id": 2},
        {"id": 3, "name": "c"},
    ]
    renamed = rows(reader, envelope(columns=["name", "id"], data=[]), envelope(data=["d", 4]))
    assert renamed == [{"name": "d", "id": 4}]


def test_other_lines_between_envelopes_are_ignored() -> None:
    found = rows(EnvelopeLines(["id"]), b"", b"heartbeat", envelope(data=[1]), b" \r", b"[1]", envelope(data=[2]))
    assert found == [{"id": 1}, {"id": 2}]
    assert rows(EnvelopeLines(["id"]), b"", b"\r") == []


@pytest.mark.parametrize(
    "line",
    [
        {"code": "QUERY_TIMEOUT", "message": "too long"},
        {"code": None},
        {"error": "oops"},
        envelope(columns=["id"], data=[1, 2]),
        envelope(columns=[3], data=[1]),
        envelope(columns="id", data=[1]),
        envelope(data={"id": 1}),
        b'{"code": "SUCC',
        b"{\xff}",
    ],
)
def test_envelope_with_error_raises_invalid(line: Any) -> None:
    with pytest.raises(DownloadInvalidError):
        rows(EnvelopeLines(["id"]), envelope(data=[1]), line)


def test_error_message_contains_code_of_envelope() -> None:
    with pytest.raises(DownloadInvalidError, match="QUERY_TIMEOUT"):
        rows(EnvelopeLines(["id"]), {"code": "QUERY_TIMEOUT", "message": "too long"})


def test_response_without_envelopes_raises_invalid_and_quotes_no_line() -> None:
    with pytest.raises(DownloadInvalidError, match=r"no line that could be parsed: its first line has 11 bytes$"):
        rows(EnvelopeLines(["id"]), b"", b"no envelope")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (["a", 1, 1.5, True, None, 2**63], "a,1,1.5,true,,9223372036854775808"),
        (['"open', "“弯”", "a,b", " x "], '"""open",“弯”,"a,b", x '),
        (["a\nb", "a\rb", "a\tb"], '"a\nb","a\rb",a\tb'),
        ([["x", "y"]], '"[""x"", ""y""]"'),
        ([None], '""'),
        (["\ud800"], "?"),
    ],
)
def test_csv_line_is_quoted_and_encoded(values: list[Any], line: str) -> None:
    assert csv_line(values) == f"{line}\n".encode()


def test_json_line_is_encoded() -> None:
    assert json_line({"id": 1, "名": "a\n\ud800", "x": None}) == '{"id": 1, "名": "a\\n?", "x": null}\n'.encode()
