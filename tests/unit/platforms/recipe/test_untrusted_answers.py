"""Answers of an API that are wrong: never a traceback, a file of another job, or a part taken for a whole."""

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from export_worker.errors import (
    DownloadInterruptedError,
    PlatformMalformedError,
    StepError,
)
from export_worker.lifecycle.observations import Pending, Ready, RemoteFile
from export_worker.platforms.recipe.unpacking import Unpacked
from support.small_api import FILE, HEAD, KIND, POLL, Played, Users, download, run, zipped

PAGES = 'result.name = "users.csv"\nresult.pages = { path = "/users", items = "users", '


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("ceil(v)", "NaN"),
        ("floor(v)", "Infinity"),
        ("contains(v, `5`)", '"abc"'),
        ("max_by(v, &a).a", '[{"a": 1}, {"a": "x"}]'),
        ("merge(v, `1`)", "{}"),
        ("v < `3`", '"a"'),
        ("avg(v)", "[1" + "0" * 400 + "]"),
    ],
)
async def test_value_that_an_expression_cannot_take_is_a_malformed_answer(
    build: Any, played: Played, source: str, value: str
) -> None:
    kind = KIND.replace('id = "data.id"', f"id = '{source}'")
    played.answers = {"/exports": [f'{{"v": {value}}}'.encode()]}
    with pytest.raises(PlatformMalformedError) as caught:
        await build(HEAD + kind + POLL + FILE).submit(Users())
    assert caught.value.unclear


@pytest.mark.parametrize("rule", ["success", "retry", "throttled", "not_found"])
async def test_rule_that_cannot_be_evaluated_is_a_malformed_answer(build: Any, played: Played, rule: str) -> None:
    played.answers = {"/exports": [{"data": {"id": "1"}, "code": "x"}]}
    with pytest.raises(PlatformMalformedError) as caught:
        await build(HEAD + f"errors.{rule} = 'code > `0`'\n" + KIND + POLL + FILE).submit(Users())
    assert caught.value.unclear


LINKED = POLL + 'links = "url"\nname = "x.csv"\n'


async def test_jobs_of_two_kinds_with_one_id_have_links_of_their_own(build: Any, played: Played) -> None:
    other = (KIND + LINKED).replace("kinds.users", "kinds.events").replace("/exports", "/events")
    played.answers = {
        "/exports/1": [{"state": "done", "url": "/signed/users"}],
        "/events/1": [{"state": "done", "url": "/signed/events"}],
        "/signed/users": [b"users"],
        "/signed/events": [b"events"],
    }
    driver, events = build(HEAD + KIND + LINKED + other), Users(kind="tiny.events")
    [ready, later] = [await driver.poll(export, "1") for export in (Users(), events)]
    assert isinstance(ready, Ready)
    assert isinstance(later, Ready)
    assert await download(driver, ready.files[0]) == b"users"
    assert await download(driver, later.files[0], events) == b"events"


@pytest.mark.parametrize("answer", [{"state": "done"}, {"state": "done", "url": None}, {"state": "done", "url": 7}])
async def test_finished_job_without_the_link_is_no_empty_result(build: Any, played: Played, answer: Any) -> None:
    played.answers = {"/exports/1": [answer]}
    with pytest.raises(PlatformMalformedError):
        await build(HEAD + KIND + LINKED).poll(Users(), "1")


async def test_empty_list_of_links_is_an_empty_result(build: Any, played: Played) -> None:
    played.answers = {"/exports/1": [{"state": "done", "url": []}]}
    assert await build(HEAD + KIND + LINKED).poll(Users(), "1") == Ready("done", ())


async def test_rows_of_csv_pages_with_line_ends_in_fields_are_counted_once(build: Any, played: Played) -> None:
    played.answers = {
        "/exports": [{"data": {"id": 1}}],
        "/users?offset=0": [b'id,note\n1,"a\nb\nc"\n2,"d ""\n"\n'],
        "/users?offset=2": [b"id,note\n3,e\n"],
        "/users?offset=3": [b"id,note\n"],
    }
    driver = build(HEAD + KIND + PAGES + 'source = "csv", query = { offset = "{offset}" } }')
    _, ready = await run(driver, Users())
    assert await download(driver, ready.files[0]) == b'id,note\n1,"a\nb\nc"\n2,"d ""\n"\n3,e\n'


@pytest.mark.parametrize(
    ("pages", "answers"),
    [
        (
            'query = { after = "{cursor}" }, next = "next" }',
            {
                "/users": [{"users": [1], "next": "a"}],
                "/users?after=a": [{"users": [2], "next": "b"}],
                "/users?after=b": [{"users": [3], "next": "a"}],
            },
        ),
        ('next_link = "next" }', {"/users": [{"users": [1], "next": "/users?" + "a=1&" * 99}]}),
        (
            'query = { after = "{cursor}" }, next = "next" }',
            {"/users": [{"users": [1], "next": {"after": "b"}}, {"users": [2]}]},
        ),
        ('query = { page = "{page}" }, source = "csv" }', {"/users": [b"id\n1\n2\n"]}),
        ('query = { page = "{page}" } }', {"/users": [{"users": [1]}]}),
        ('query = { page = "{page}" } }', {"/users": [{"users": [1]}, {"users": {"2": 2}}]}),
        ('query = { page = "{page}" } }', {"/users": [{"users": [1]}, {"error": "try later"}]}),
    ],
    ids=["cycle", "long address", "cursor of another type", "same csv", "same", "other type", "error"],
)
async def test_pages_without_an_end_are_refused(
    build: Any, played: Played, pages: str, answers: dict[str, list[Any]]
) -> None:
    played.answers = {"/exports": [{"data": {"id": 1}}], **answers}
    driver = build(HEAD + KIND + PAGES + pages)
    _, ready = await run(driver, Users())
    with pytest.raises(StepError):
        await download(driver, ready.files[0])
    assert len(played.requests) < 10


async def test_page_without_items_has_no_header_of_nothing(build: Any, played: Played) -> None:
    played.answers = {"/exports": [{"data": {"id": 1}}], "/users": [{"users": []}]}
    driver = build(HEAD + KIND + PAGES + 'format = "csv" }')
    _, ready = await run(driver, Users())
    assert await download(driver, ready.files[0]) == b""


class Cut:
    """A download that the server has ended after some bytes, without saying how many there are."""

    total_bytes: int | None = None
    content_type = "application/octet-stream"
    validator: str | None = None
    offset_bytes = 0

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the bytes."""
        if self._content:
            yield self._content


@pytest.mark.parametrize(
    "packed", [gzip.compress(b"id\n1\n" * 9), zipped({"a.csv": b"id\n1\n" * 9})], ids=["gz", "zip"]
)
async def test_packed_file_that_is_cut_anywhere_is_never_a_whole_one(packed: bytes) -> None:
    directory = packed.find(b"PK\x01\x02")
    for end in range(1, (directory if directory > 0 else len(packed))):
        with pytest.raises(DownloadInterruptedError):
            [piece async for piece in Unpacked(Cut(packed[:end]), "x.csv").chunks()]


async def test_later_link_of_a_request_apart_is_awaited(build: Any, played: Played) -> None:
    played.answers = {
        "/exports": [{"data": {"id": 1}}],
        "/exports/1/link": [{"url": "/signed/x"}],
        "/signed/x": [404, b"id\n"],
    }
    text = (
        HEAD + KIND + 'result = { path = "/exports/{operation_id}/link", links = "url", later = true, name = "x.csv" }'
    )
    driver = build(text)
    operation_id = (await driver.submit(Users())).operation_id
    assert await driver.poll(Users(), operation_id) == Pending(None)
    ready = await driver.poll(Users(), operation_id)
    assert isinstance(ready, Ready)
    assert await download(driver, ready.files[0]) == b"id\n"


@pytest.mark.parametrize("value", ["a\nb", "\x00", "x" * 513, "\ud800", "\x1b[31m"])
async def test_id_that_cannot_be_carried_is_unclear(build: Any, played: Played, value: str) -> None:
    played.answers = {"/exports": [json.dumps({"data": {"id": value}}).encode()]}
    with pytest.raises(PlatformMalformedError) as caught:
        await build(HEAD + KIND + POLL + FILE).submit(Users())
    assert caught.value.unclear


@pytest.mark.parametrize("value", ["a/b", "../x", "a%2Fb", "a?b#c", "下载", "a b", "..a"])
async def test_id_with_punctuation_stays_one_segment(build: Any, played: Played, value: str) -> None:
    played.answers = {"/exports": [{"data": {"id": value}}]}
    driver = build(HEAD + KIND + POLL + FILE)
    operation_id = (await driver.submit(Users())).operation_id
    with pytest.raises(StepError):
        await driver.poll(Users(), operation_id)
    assert played.requests[-1][1].count("/") == 2


@pytest.mark.parametrize(
    "link", ["file:///etc/passwd", "http://169.254.169.254/x", "http://user:pw@127.0.0.1/", "//evil.example/x", "ftp://x/y",
             "http://127.0.0.1:1/x", "javascript:1", "http://", "\x00", "x" * 9000]
)  # fmt: skip
async def test_link_to_elsewhere_is_refused(build: Any, played: Played, link: str) -> None:
    played.answers = {"/exports/1": [{"state": "done", "url": link}]}
    driver = build(HEAD + KIND + LINKED)
    with pytest.raises(StepError):
        await download(driver, RemoteFile("1#1", "x.csv"))
    assert all(path == "/exports/1" for path in played.paths())


@pytest.mark.parametrize("depth", [900, 100_000])
async def test_deep_answer_is_malformed(build: Any, played: Played, depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    for answer in (deep, b'{"state": ' + deep + b"}", b'{"state":"failed","why":' + deep + b"}"):
        played.answers = {"/exports/1": [answer]}
        driver = build(HEAD + KIND + POLL.replace('reason = "why"', "") + FILE)
        with suppress(StepError):
            await driver.poll(Users(), "1")


async def test_remote_file_of_nonsense_is_refused(build: Any) -> None:
    driver = build(HEAD + KIND + POLL + FILE)
    for uri in ("", "#", "1#x", "1#²", "1#" + "9" * 30):
        with pytest.raises(StepError):
            await download(driver, RemoteFile(uri, "x.csv"))


@pytest.mark.parametrize(
    ("members", "flag", "problem"),
    [(10_000, 0, None), (10_001, 0, "more than 10000 members"), (1, 1, "is encrypted")],
    ids=["most", "too many", "encrypted"],
)
async def test_zip_with_many_members_is_joined_or_refused(members: int, flag: int, problem: str | None) -> None:
    packed = bytearray(zipped({f"{number}.csv": b"id\n1\n" for number in range(members)}))
    packed[6] |= flag
    pieces = Unpacked(Cut(bytes(packed)), "x.csv").chunks()
    if problem is None:
        assert b"".join([piece async for piece in pieces]) == b"id\n" + b"1\n" * members
    else:
        with pytest.raises(DownloadInterruptedError, match=problem):
            [piece async for piece in pieces]
