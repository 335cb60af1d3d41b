"""Results of SQL queries, from servers that send something else than rows: no wrong value and no short file."""

import gzip
import zlib
from typing import Any

import pytest

from export_worker.contract.request import SensorsdataUserGroupUsers, ThinkingdataClusterUsers
from export_worker.errors import DownloadInterruptedError, DownloadInvalidError, PlatformMalformedError, StepError
from export_worker.lifecycle.observations import RemoteFile
from export_worker.platforms.sensorsdata.sql import JsonLines
from export_worker.platforms.sensorsdata.users import json_line
from export_worker.platforms.thinkingdata.rows import JsonTable
from support.drivers import sensorsdata_driver, thinkingdata_driver
from support.scripted_server import Reply, ScriptedServer, json_replied, replied

CLUSTER = ThinkingdataClusterUsers(project_id=7, cluster_name="recent", refresh=False, columns=["a"])
TASK = RemoteFile("/open/sql-result-page?taskId=t-1", "recent.csv")
GROUP = SensorsdataUserGroupUsers(group_id=42, columns=["id", "first_id"])
USERS = RemoteFile("user-group:42?name=vip", "vip.csv")
SQL_V2, SQL_V3 = "/api/sql/query", "/api/v3/analytics/v1/model/sql/query"
MARK = b"\xef\xbb\xbf"


async def pages_of_task(
    page: Reply, columns: list[str], rows: int | None = 1, headers: Any = None, beside: Any = None
) -> bytes:
    """Returns the file that ThinkingData's driver makes of one page."""
    export = CLUSTER.model_copy(update={"columns": columns})
    stat = {"rowCount": rows, "pageCount": 1, "pageSize": 1000, "headers": headers}
    async with ScriptedServer() as server, thinkingdata_driver(server, row_count_required=False) as driver:
        server.on(
            "/open/sql-task-info",
            json_replied(
                {"return_code": 0, "data": {"status": "FINISHED", "resultStat": stat, "headers": beside}},
            ),
        )
        server.on("/open/sql-result-page", page)
        async with driver.open_result(export, TASK) as download:
            return b"".join([chunk async for chunk in download.chunks()])


async def users_of_group(
    lines: bytes, *, v3: bool = False, head: dict[str, str] | None = None, **options: Any
) -> bytes:
    """Returns the file that the driver of Sensors Data makes of one response."""
    options = ({"api_key": "#K-1"} if v3 else {"sql_format": "text"}) | options
    end = "id\tfirst_id\n" if options.get("sql_format") == "text" else ""
    async with ScriptedServer() as server, sensorsdata_driver(server, **options) as driver:
        server.on(SQL_V3 if v3 else SQL_V2, replied(lines, headers=head), replied(end))
        async with driver.open_result(GROUP, USERS) as download:
            return b"".join([chunk async for chunk in download.chunks()])


def envelope(row: str, columns: str = '"id", "first_id"') -> bytes:
    return f'{{"code": "SUCCESS", "data": {{"columns": [{columns}], "data": {row}}}}}\n'.encode()


@pytest.mark.parametrize(
    ("headers", "page", "content"),
    [
        (["x", "y"], b"1,2\n", b"x,y\n1,2\n"),
        (["x", "y", "z"], b"1,2,3\n", b"x,y,z\n1,2,3\n"),
        (["x\ud800", "y"], b"1,2\n", b"x?,y\n1,2\n"),
        ([], b"1,2\n", b"a,#user_id\n1,2\n"),
        (None, b"1,2\n", b"a,#user_id\n1,2\n"),
    ],
)
async def test_header_has_the_names_that_the_platform_states(headers: Any, page: bytes, content: bytes) -> None:
    assert await pages_of_task(replied(page), ["a"], headers=headers) == content


@pytest.mark.parametrize(
    ("headers", "page"), [(["x", "y", "z"], b"1,2\n"), (["x"], b"1,2\n"), (["x", "y"], b"1,2,3\n")]
)
async def test_rows_that_do_not_fit_the_names_of_the_platform_are_refused(headers: list[str], page: bytes) -> None:
    with pytest.raises(DownloadInvalidError, match=f"row 1 of the result has {page.count(b',') + 1} values for"):
        await pages_of_task(replied(page), ["a"], headers=headers)


@pytest.mark.parametrize(
    ("page", "row", "values"),
    [
        (b'"Error": no such table\n', 1, 1),
        (b'1,"a"b\n"x" is missing\n', 2, 1),
        (b'1,"never closed\nfailed\n', 2, 1),
        (b'"a"b,1,2,3\n', 1, 4),
        (b'"a"b,1\n1,2,3,4\n', 2, 4),
        (b'"a"b,1\n"x",2,3\n"y",2,3,4\n', 2, 3),
    ],
)
async def test_lines_with_other_values_are_refused_beside_unbalanced_quotes(page: bytes, row: int, values: int) -> None:
    message = f"row {row} of the result has {values} values for 2 columns, on a page with quotes that are not balanced"
    with pytest.raises(DownloadInvalidError, match=f"{message}$"):
        await pages_of_task(replied(page), ["a"], rows=None)


@pytest.mark.parametrize("page", [b'"a"b,"x, y"\n', b'"a \\"b, c\\"",2\n', b'1,"a"b\n"c""d, e",\n'])
async def test_lines_with_all_values_are_kept_beside_unbalanced_quotes(page: bytes) -> None:
    assert await pages_of_task(replied(page), ["a"], rows=page.count(b"\n")) == b"a,#user_id\n" + page


@pytest.mark.parametrize("before", [b"", b"1,2\n", b'1,"2"\n', b'1,"two\nlines"\n', b'1,"never closed\n'])
@pytest.mark.parametrize(
    "line",
    [
        b'{"code":500,"message":"x"}',
        b'  {"return_code":-1,"return_message":"x"}',
        b'[500,"x"]',
        b"[500,1]",
        b'{"error": {"a,b": [1]}}',
    ],
)
async def test_json_is_no_row_of_two_values(before: bytes, line: bytes) -> None:
    with pytest.raises(StepError):
        await pages_of_task(replied(before + line + b"\n"), ["a"], rows=None)


@pytest.mark.parametrize(
    "page",
    [
        '<?xml version="1.0"?><a>a, b</a>',
        "<!-- a, b -->",
        "<!DOCTYPE x, y>",
        "<HTML><p>a, b",
        "<Error>a, b</Error>",
        "系统错误,请稍后再试",
        "系统错误500,请联系管理员\n",
        "Error 502, please wait\n",
        "Something failed, try again later",
    ],
)
async def test_message_with_a_comma_is_no_row_of_two_values(page: str) -> None:
    with pytest.raises(DownloadInvalidError):
        await pages_of_task(replied(page.encode(), content_type="text/plain"), ["a"])


@pytest.mark.parametrize(
    "page", ["请稍后,17\n", '"please, wait",x\n', "1,2\n请联系,a\n", "[0,18)\n", "{a,b}\n", "1,<!-- x -->\n"]
)
async def test_row_that_resembles_a_message_is_kept(page: str) -> None:
    content = await pages_of_task(replied(page.encode()), ["a"], rows=None)
    assert content == b"a,#user_id\n" + page.encode()


@pytest.mark.parametrize("headers", ["t,u", {"x": "y"}, [1, 2], ["x", None], 7, False])
async def test_names_of_the_platform_in_another_form_are_refused(headers: Any) -> None:
    with pytest.raises(PlatformMalformedError, match="headers of resultStat is no list of texts"):
        await pages_of_task(replied(b"1,2\n"), ["a"], headers=headers)
    with pytest.raises(PlatformMalformedError, match="headers of the data beside resultStat is no list of texts"):
        await pages_of_task(replied(b"1,2\n"), ["a"], beside=headers)


async def test_names_beside_the_size_of_the_result_are_used() -> None:
    assert await pages_of_task(replied(b"1,2\n"), ["a"], beside=["x", "y"]) == b"x,y\n1,2\n"


PAGES = [
    b"<?xml version='1.0'?><Error/>",
    b"\n <Error><Code>x</Code></Error>",
    b"<!-- proxy --><p>gone",
    MARK + b"<script>location='/'</script>",
    b"<h1>502 Bad Gateway</h1>",
    b"<soap:Envelope>",
    b"Internal Server Error",
    b"upstream connect error or disconnect/reset before headers. reset reason: connection failure\n",
    "系统繁忙\uff0c请稍后再试".encode(),
    b"NoSuchKey",
]


@pytest.mark.parametrize("rows", [1, None])
@pytest.mark.parametrize("page", PAGES)
async def test_page_of_one_column_that_is_a_message_is_refused(page: bytes, rows: int | None) -> None:
    # A table of one column has no separator whose absence would show that a line is no row.
    with pytest.raises(DownloadInvalidError):
        await pages_of_task(replied(page, content_type="text/plain"), ["#user_id"], rows=rows)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("v3", [False, True])
async def test_message_in_place_of_users_is_refused(page: bytes, *, v3: bool) -> None:
    with pytest.raises(DownloadInvalidError):
        await users_of_group(page, v3=v3)


@pytest.mark.parametrize("page", PAGES)
async def test_message_behind_users_is_refused(page: bytes) -> None:
    with pytest.raises(DownloadInvalidError):
        await users_of_group(envelope('[1, "a"]') + page, v3=True, page_rows=0)


@pytest.mark.parametrize("tail", [b'"first_id"],"data":[2,"b"]}}', b"2]}}", b"}", b"Bad Gateway", b'data: {"code":'])
async def test_part_of_an_envelope_or_message_behind_users_is_refused(tail: bytes) -> None:
    with pytest.raises(DownloadInvalidError):
        await users_of_group(envelope('[1, "a"]') + tail, v3=True, page_rows=0)


@pytest.mark.parametrize("data", ['[[1, "a"]]', '"x"', "7", "false", "{}", '{"columns": ["id"], "rows": [[1]]}'])
async def test_rows_of_users_in_another_form_are_refused(data: str) -> None:
    with pytest.raises(DownloadInvalidError, match="is no object with rows in its field data"):
        await users_of_group(f'{{"code": "SUCCESS", "data": {data}}}'.encode(), v3=True, page_rows=0)


async def test_numbers_of_users_keep_their_text() -> None:
    number = "12345678901234567.89"
    for text in (number, "1e999", "1.50", f"[{number}, null]", f'{{"é": [{number}]}}'):
        line = f'{{"id": 1, "first_id": {text}}}\n'.encode()
        assert b"".join(map(json_line, JsonLines().rows(line))) == line
    users = await users_of_group(envelope(f"[1, {number}]"), v3=True, page_rows=0)
    assert users == f"id,first_id\n1,{number}\n".encode()


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
async def test_constants_of_scripts_are_no_json(name: str) -> None:
    with pytest.raises(DownloadInvalidError):
        await users_of_group(envelope(f"[1, {name}]"), v3=True, page_rows=0)
    with pytest.raises(DownloadInvalidError):
        JsonTable(["a", "b"]).add(f"[1,{name}]\n".encode())


def test_names_that_would_be_equal_keys_are_refused() -> None:
    with pytest.raises(DownloadInvalidError, match="two columns with the name 'a'"):
        JsonTable(["a", "b", "a"])


async def test_marks_at_the_start_of_a_result_are_no_data() -> None:
    assert await pages_of_task(replied(MARK * 2 + b"1,2\n"), ["a"]) == b"a,#user_id\n1,2\n"
    users = "id,first_id\n1,\ufeffa\n".encode()
    assert await users_of_group(MARK * 2 + "id\tfirst_id\n1\t\ufeffa\n".encode()) == users
    assert await users_of_group(MARK * 2 + '{"id": 1, "first_id": "\ufeffa"}\n'.encode(), sql_format="json") == users
    assert await users_of_group(MARK * 2 + envelope('[1, "\ufeffa"]'), v3=True) == users


async def test_mark_within_a_result_is_data() -> None:
    found = await users_of_group("first_id\tid\nb\t1\n\ufeffc\t2\n".encode())
    assert found == "id,first_id\n1,b\n2,\ufeffc\n".encode()


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        (b"id\tname\n1\ta\n", {}),
        (b"id\tFIRST_ID\n1\ta\n", {}),
        (b'{"id": 1, "First_Id": "a"}\n', {"sql_format": "json"}),
        (envelope('[1, "a"]', '"id", "FIRST_ID"'), {"v3": True}),
    ],
)
async def test_column_under_another_name_is_refused_and_not_left_empty(lines: bytes, options: dict[str, Any]) -> None:
    with pytest.raises(DownloadInvalidError, match="first_id"):
        await users_of_group(lines, **options)


async def test_column_that_a_row_leaves_out_is_empty() -> None:
    assert await users_of_group(b'{"id": 1}\n', sql_format="json") == b"id,first_id\n1,\n"
    assert await users_of_group(envelope("[1]", '"id"'), v3=True) == b"id,first_id\n1,\n"


def packed(data: bytes, coding: str) -> bytes:
    return gzip.compress(data) if coding == "gzip" else zlib.compress(data)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_coded_result_is_read_and_a_cut_one_is_interrupted(coding: str) -> None:
    head, lines, page = {"Content-Encoding": coding}, b"id\tfirst_id\n1\ta\n", b"1,2\n"
    assert await users_of_group(packed(lines, coding), head=head) == b"id,first_id\n1,a\n"
    assert await pages_of_task(replied(packed(page, coding), headers=head), ["a"]) == b"a,#user_id\n1,2\n"
    with pytest.raises(DownloadInterruptedError, match=f"its {coding} coding is cut"):
        await users_of_group(packed(lines, coding)[:-1], head=head)
    with pytest.raises(DownloadInterruptedError, match=f"its {coding} coding is cut"):
        await pages_of_task(replied(packed(page, coding)[:-1], headers=head), ["a"])


@pytest.mark.parametrize("name", ["br", "compress", "chunked"])
async def test_unknown_coding_of_a_result_is_refused_by_its_name(name: str) -> None:
    for reading in (
        users_of_group(b"id\tfirst_id\n", head={"Content-Encoding": name}),
        pages_of_task(replied(b"1,2\n", headers={"Content-Encoding": name}), ["a"]),
    ):
        with pytest.raises(StepError, match=f"a coding that cannot be undone: {name}"):
            await reading
