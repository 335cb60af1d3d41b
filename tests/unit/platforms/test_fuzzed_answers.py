"""Answers that are changed at random, from a fixed seed: each becomes a result or an error with a code, never another.

A failure prints the changed answer. `FUZZ_SEED` and `FUZZ_ROUNDS` in the environment look for more.
"""

import json
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from random import Random
from typing import Any

import pytest
from yarl import URL

from export_worker.contract.request import GrowingioSegmentUsers, SensorsdataUserGroupUsers, ThinkingdataClusterUsers
from export_worker.errors import StepError
from export_worker.lifecycle.observations import RemoteFile
from export_worker.platforms.base import Download, ResumePoint
from export_worker.platforms.sensorsdata.sql import EnvelopeLines, JsonLines, LineReader, TextLines
from export_worker.platforms.thinkingdata.rows import CsvTable, JsonTable, PageReader, Table
from support.drivers import (
    downloader,
    growingio_driver,
    growingio_rest_driver,
    sensorsdata_driver,
    thinkingdata_driver,
)
from support.growingio_rest_sample import JOB_ID, RESULT, SEGMENT, SUBMIT, SUBMITTED, URI
from support.mutations import answering_in_turn, changed_bytes, changed_value
from support.scripted_server import ScriptedServer, Seen, replied

SEED = int(os.environ.get("FUZZ_SEED", "15"))
ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "150"))
FILE = b"id,name\n1,a\n2,b\n"
HEADS = {
    "file": b'HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: 16\r\nETag: "1"\r\n\r\n' + FILE,
    "chunks": b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n"
    + FILE
    + b"\r\n0\r\n\r\n",
    "coded": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, identity\r\nContent-Length: 16\r\n\r\n" + FILE,
    "rest": b'HTTP/1.1 206 OK\r\nETag: "1"\r\nContent-Range: bytes 4-15/16\r\nContent-Length: 12\r\n\r\n' + FILE[4:],
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: /d/users.csv?a=%2F#x\r\nContent-Length: 0\r\n\r\n",
    "refusal": b"HTTP/1.1 503 No\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\nContent-Length: 2\r\n\r\nno",
}


@contextmanager
def reported(case: object) -> Iterator[None]:
    """Adds the changed input to an unexpected error."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, StepError):
            error.add_note(f"changed input: {case!r}")
        raise


async def body_of(opened: AbstractAsyncContextManager[Download]) -> bytes:
    async with opened as download:
        return b"".join([chunk async for chunk in download.chunks()])


@pytest.mark.parametrize("form", HEADS)
async def test_changed_response_to_a_download_is_a_file_or_an_error_with_a_code(form: str) -> None:
    random = Random(f"{SEED} {form}")
    answers = [changed_bytes(random, HEADS[form]) for _ in range(ROUNDS)]
    point = ResumePoint(offset_bytes=4, total_bytes=16, validator='"1"') if form == "rest" else None
    for answer in answers:
        async with answering_in_turn([answer, HEADS["file"]]) as url, downloader(url) as files:
            with reported(answer), suppress(StepError):
                await body_of(files.open(URL(f"{url}/d/users.csv", encoded=True), "users.csv", point))


class Changed:
    """Replies to each path with its answer; the answer to one request in three is changed."""

    def __init__(self, random: Random, answers: Mapping[str, Any]) -> None:
        self._random = random
        self._answers = answers
        self.sent: list[bytes] = []

    async def __call__(self, seen: Seen) -> Any:
        value = self._answers[seen.target.partition("?")[0]]
        value = value(seen) if callable(value) else value
        for _ in range(self._random.choice((0, 1, 1, 2))):
            value = changed_value(self._random, value)
        body = json.dumps(value).encode()
        self.sent.append(changed_bytes(self._random, body) if self._random.random() < 0.1 else body)
        return await replied(self.sent[-1], content_type="application/json")(seen)


def graphql_answer(seen: Seen) -> Any:
    name = seen.json["operationName"]
    field = name[0].lower() + name[1:]
    job = {"id": "VGFn", "stage": "FINISH", "uris": ["/exports/1/a.csv"], "error": {"code": "1", "message": "no"}}
    listed = [{"id": "a", "name": "b"}]
    errors = [{"message": "no", "extensions": {"code": "NOT_FOUND", "classification": "x"}}]
    return {"data": {"jobResult": job, field: job if "Job" in name else listed}, "errors": errors}


GIO = GrowingioSegmentUsers(project_id="WlGk4Daj", segment_id="qgQMXnD3")
CLUSTER = ThinkingdataClusterUsers(project_id=102, cluster_id=970)
GROUP = SensorsdataUserGroupUsers(group_id=42)
PARTITION = {
    "base_time": "2019-03-05 00:00:00",
    "status": "SUCCEED",
    "start_time": "a",
    "finished_time": "b",
    "user_count": 2,
}


def envelope(**data: Any) -> dict[str, Any]:
    return {"return_code": 0, "return_message": "success", "data": data}


STAT = {"headers": ["a", "b"], "rowCount": 2, "pageCount": 1, "pageSize": 1000}
DETAIL = envelope(clusterName="recent", id=970, progress=100, refreshTime="2020-01-10 10:51:14")
Round = Callable[[ScriptedServer], Awaitable[None]]


async def growingio_round(server: ScriptedServer) -> None:
    async with growingio_driver(server) as driver:
        for call in (driver.submit(GIO), driver.poll(GIO, "VGFn"), driver.catalog("projects", None)):
            with suppress(StepError):
                await call


async def growingio_rest_round(server: ScriptedServer) -> None:
    async with growingio_rest_driver(server) as driver:
        for call in (driver.submit(SEGMENT), driver.poll(SEGMENT, JOB_ID)):
            with suppress(StepError):
                await call


async def thinkingdata_round(server: ScriptedServer) -> None:
    task = RemoteFile("/open/sql-result-page?taskId=t-1", "recent.csv")
    async with thinkingdata_driver(server, page_retries=0) as driver:
        with suppress(StepError):
            operation = await driver.submit(CLUSTER)
            await driver.poll(CLUSTER, operation.operation_id)
        with suppress(StepError):
            await driver.poll(CLUSTER, "sql?task=t-1&cluster=recent")
        with suppress(StepError):
            await body_of(driver.open_result(CLUSTER, task))


async def sensorsdata_round(server: ScriptedServer) -> None:
    async with sensorsdata_driver(server) as driver:
        with suppress(StepError):
            operation = await driver.submit(GROUP)
            polled = await driver.poll(GROUP, operation.operation_id)
            for file in getattr(polled, "files", ()):
                await body_of(driver.open_result(GROUP, file))
        with suppress(StepError):
            await driver.catalog("user-groups", None)


ANSWERS: dict[str, tuple[Round, dict[str, Any]]] = {
    "growingio": (growingio_round, {"/graphql": graphql_answer}),
    "growingio-rest": (
        growingio_rest_round,
        {SUBMIT: SUBMITTED, RESULT: {"id": JOB_ID, "stage": "FINISH", "uris": [URI], "message": "x"}},
    ),
    "thinkingdata": (
        thinkingdata_round,
        {
            "/open/user-cluster-detail": DETAIL,
            "/open/user-cluster-refresh": envelope(),
            "/open/user-cluster-refresh-progress": envelope(progress=100, refreshTime="2020-01-10 10:52:14"),
            "/open/submit-sql": envelope(taskId="t-1"),
            "/open/sql-task-info": envelope(taskId="t-1", status="FINISHED", progress=100, resultStat=STAT),
            "/open/sql-result-page": envelope(headers=["a", "b"]),
        },
    ),
    "sensorsdata": (
        sensorsdata_round,
        {
            "/api/v2/user_groups": [{"id": 42, "name": "vip"}],
            "/api/v2/user_groups/42": {"id": 42, "name": "vip", "last_succeed_partition": PARTITION},
            "/api/v2/user_groups/42/status": [PARTITION],
            "/api/v2/user_groups/42/execute": {},
            "/api/sql/query": {"id": 1, "first_id": "a", "second_id": "b"},
        },
    ),
}


@pytest.mark.parametrize("platform", ANSWERS)
async def test_changed_answer_of_a_platform_is_read_or_an_error_with_a_code(platform: str) -> None:
    run, answers = ANSWERS[platform]
    random = Random(f"{SEED} {platform}")
    for _ in range(ROUNDS // 2):
        changed = Changed(random, answers)
        async with ScriptedServer() as server:
            for path in answers:
                server.on(path, changed)
            with reported(changed.sent):
                await run(server)


PAGES: list[tuple[Callable[[], Table], bytes]] = [
    (lambda: CsvTable(["a", "b"]), b'{"return_code": 0}\n1,2\n"x\ny",""\r\n3,"a""b"\n'),
    (lambda: CsvTable(["a"]), b'1\n"2"\n3\n'),
    (lambda: JsonTable(["a", "b"]), b'{"return_code": 0}\n[1, "\xe4\xb8\xad"]\n[null, {"a": [1]}]\n'),
]
LINES: list[tuple[Callable[[], LineReader], bytes]] = [
    (lambda: JsonLines("id"), b'{"id": 1, "n": "a"}\n\n{"id": 2, "n": null}\n'),
    (lambda: TextLines(["id", "n"]), b"id\tn\n1\ta\n2\t\n"),
    (
        lambda: EnvelopeLines(["id", "n"]),
        b'\n{"code": "SUCCESS", "data": {"columns": ["id", "n"], "data": [[1, "a"], [2, null]]}}\nheartbeat\n',
    ),
]


def pieces_of(random: Random, data: bytes) -> Iterator[bytes]:
    while data:
        size = random.choice((1, 3, 40, 2000))
        yield data[:size]
        data = data[size:]


def test_changed_page_of_a_result_is_read_or_refused() -> None:
    random = Random(SEED)
    for new_table, page in PAGES:
        for _ in range(ROUNDS * 3):
            data, table, reader = changed_bytes(random, page), new_table(), PageReader(lambda value: value == {})
            with reported(data), suppress(StepError):
                for piece in pieces_of(random, data):
                    table.add(reader.feed(piece))
                table.add(reader.finish())
                table.end_page()


def test_changed_lines_of_a_result_are_read_or_refused() -> None:
    random = Random(SEED)
    for new_reader, lines in LINES:
        for _ in range(ROUNDS * 3):
            data, reader = changed_bytes(random, lines), new_reader()
            with reported(data), suppress(StepError):
                for line in data.split(b"\n"):
                    reader.rows(line)
                reader.end()
