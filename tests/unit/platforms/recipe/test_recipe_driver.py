"""The driver of recipes against a played server: each part of the language does what it says."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from export_worker.errors import (
    AuthFailedError,
    ConfigError,
    DownloadInterruptedError,
    DownloadInvalidError,
    PlatformMalformedError,
    PlatformNotFoundError,
    PlatformPausedError,
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnavailableError,
    ResultMissingError,
)
from export_worker.lifecycle.observations import OperationFailed, Pending, Ready, RemoteFile
from export_worker.platforms.recipe.driver import ResultEmptyError
from support.small_api import FILE, HEAD, KIND, POLL, TOKEN, Played, Users, download, run, zipped


async def test_export_is_submitted_polled_and_downloaded(build: Any, played: Played) -> None:
    played.answers = {
        "/exports": [{"data": {"id": 17}}],
        "/exports/17": [{"state": "queued"}, {"state": "moonstruck", "percent": 40}, {"state": "done"}],
        "/exports/17/file": [b"id\n1\n"],
    }
    driver, export = build(HEAD + KIND + POLL + FILE), Users(list_id="a/b", fields=["mail"])
    assert (await driver.submit(export)).operation_id == "17"
    assert [await driver.poll(export, "17") for _ in range(2)] == [Pending("queued"), Pending("moonstruck", 40.0)]
    ready = await driver.poll(export, "17")
    assert ready == Ready("done", (RemoteFile("17#1", "a/b.csv"),))
    assert await download(driver, ready.files[0], export) == b"id\n1\n"
    assert played.requests[0] == ("POST", "/exports", {"list": "a/b", "fields": [{"name": "mail"}]})


async def test_failed_job_is_reported_and_next_submit_waits(build: Any, played: Played) -> None:
    played.answers = {"/exports": [{"data": {"id": 1}}], "/exports/1": [{"state": "failed", "why": "no space"}]}
    driver = build(HEAD + "limits = { cool_down_s = 60 }\n" + KIND + POLL + FILE)
    await driver.submit(Users())
    assert await driver.poll(Users(), "1") == OperationFailed("failed", "the API's job failed: no space")
    with pytest.raises(PlatformPausedError) as caught:
        await driver.submit(Users())
    assert 0 < (caught.value.retry_after_s or 0) <= 60
    assert played.paths() == ["/exports", "/exports/1"]


async def test_job_without_data_fails_at_once_with_the_reason(build: Any, played: Played) -> None:
    played.answers = {"/exports/1": [{"state": "empty"}]}
    with pytest.raises(ResultEmptyError, match="the state empty: there is no data to export") as caught:
        await build(HEAD + KIND + POLL + FILE).poll(Users(), "1")
    assert not caught.value.retryable


RULES = """
[errors]
success = "code == `0`"
retry = "code == `5`"
throttled = "code == `9`"
not_found = "code == `4`"
unauthorized = "code == `3`"
message = "msg"
"""


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (1, PlatformRefusedError),
        (3, AuthFailedError),
        (4, PlatformNotFoundError),
        (5, PlatformUnavailableError),
        (9, PlatformThrottledError),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
async def test_answer_that_is_an_error_by_a_rule_raises(
    build: Any, played: Played, code: int, error: type[Exception], status: int
) -> None:
    body = json.dumps({"code": code, "msg": f"trouble {TOKEN}", "state": "done"})
    answer = web.Response(status=status, text=body, content_type="application/json")
    played.answers = {"/exports/1": [answer]}
    with pytest.raises(error) as caught:
        await build(HEAD + RULES + KIND + POLL + FILE).poll(Users(), "1")
    assert "trouble ***" in str(caught.value)
    assert TOKEN not in str(caught.value)


async def test_submit_whose_answer_names_no_job_is_unclear(build: Any, played: Played) -> None:
    driver = build(HEAD + KIND + POLL + FILE)
    ids: list[Any] = [None, "", "x" * 600, True, [], {}]
    for answer in (*({"data": {"id": value}} for value in ids), [1], "text"):
        played.answers = {"/exports": [answer]}
        with pytest.raises(PlatformMalformedError) as caught:
            await driver.submit(Users())
        assert caught.value.unclear


LINKS = 'links = "urls[].href"\nexpires_s = 100\nunpack = true\n'


async def test_link_is_not_shown_and_is_asked_for_again_when_it_is_refused(build: Any, played: Played) -> None:
    def done(sign: str) -> Any:
        base = "/signed/2026%20users.csv.gz?sign="
        return {"state": "done", "urls": [{"href": f"{base}{sign}-1"}, {"href": f"{played.url}{base}{sign}-2"}]}

    signed = "/signed/2026%20users.csv.gz?sign="
    played.answers = {
        "/exports": [{"data": {"id": "j"}}],
        "/exports/j": [done("old"), done("new")],
        f"{signed}old-2": [410],
        f"{signed}new-1": [gzip.compress(b"id\n1\n")],
        f"{signed}new-2": [gzip.compress(b"id\n2\n")],
    }
    driver = build(HEAD + KIND + POLL + LINKS)
    _, ready = await run(driver, Users())
    assert ready.files == (RemoteFile("j#1", "2026 users.csv"), RemoteFile("j#2", "2026 users.csv"))
    assert await download(driver, ready.files[1]) == b"id\n2\n"
    assert await download(driver, ready.files[0]) == b"id\n1\n"
    assert played.paths().count("/exports/j") == 2


async def test_link_of_a_job_that_runs_again_is_missing_until_a_poll_finds_its_new_link(
    build: Any, played: Played
) -> None:
    played.answers = {
        "/exports": [{"data": {"id": "j"}}],
        "/exports/j": [{"state": "done", "urls": [{"href": "/old"}]}, {"state": "running"}, {"state": "running"},
                       {"state": "done", "urls": [{"href": "/new"}]}],
        "/old": [410],
        "/new": [b"id\n"],
    }  # fmt: skip
    driver = build(HEAD + KIND + POLL + LINKS)
    _, ready = await run(driver, Users())
    with pytest.raises(ResultMissingError):
        await download(driver, ready.files[0])
    assert await driver.poll(Users(), "j") == Pending("running")
    again = await driver.poll(Users(), "j")
    assert isinstance(again, Ready)
    assert await download(driver, again.files[0]) == b"id\n"


async def test_links_of_a_request_apart_are_asked_for_by_another_worker(build: Any, played: Played) -> None:
    played.answers = {
        "/exports": [{"data": {"id": 5}}],
        "/exports/5": [{"state": "done"}],
        "/exports/5/download": [{"url": "/signed/x"}],
        "/signed/x": [b"id\n"],
    }
    text = HEAD + KIND + POLL + 'path = "/exports/{operation_id}/download"\nlinks = "url"\nname = "u.csv"'
    _, ready = await run(build(text), Users())
    assert await download(build(text), ready.files[0]) == b"id\n"


async def test_link_of_the_submit_is_sealed_and_its_file_may_come_later(build: Any, played: Played) -> None:
    played.answers = {
        "/exports": [{"data": {"id": "p/1", "url": "/signed/users.zip?sign=canary"}}],
        "/signed/users.zip": [404, 404, zipped({"a.txt": b'{"id":1}', "b.txt": b'{"id":2}\n'})],
    }
    text = HEAD + KIND + 'result = { links = "data.url", later = true, unpack = true, name = "users.jsonl" }'
    driver = build(text)
    operation_id = (await driver.submit(Users())).operation_id
    assert operation_id.startswith("p%2F1?link=")
    assert "canary" not in operation_id
    assert [await driver.poll(Users(), operation_id) for _ in range(2)] == [Pending(None)] * 2
    ready = await driver.poll(Users(), operation_id)
    assert isinstance(ready, Ready)
    assert await download(build(text), ready.files[0]) == b'{"id":1}\n{"id":2}\n'
    with pytest.raises(PlatformNotFoundError, match="sealed with another credential"):
        await build(text, token="another-token-0001").poll(Users(), operation_id)


async def test_sealed_link_is_opened_by_all_workers_that_know_the_exchanged_secret(
    build: Any, played: Played, tmp_path: Path
) -> None:
    answer = {"data": {"id": "p", "url": "/signed/users.csv"}}
    played.answers = {"/exports": [answer, answer], "/signed/users.csv": [404, 404, 404]}
    text = HEAD + KIND + 'result = { links = "data.url", later = true, name = "users.csv" }'
    secret = tmp_path / "secret"
    secret.write_text("secret-number-1")
    running = build(text, client_secret=f"file:{secret}")
    before = (await running.submit(Users())).operation_id
    secret.write_text("secret-number-2")
    started = build(text, client_secret=f"file:{secret}")
    after = (await started.submit(Users())).operation_id
    assert await started.poll(Users(), after) == Pending(None)
    assert [await running.poll(Users(), text) for text in (after, before)] == [Pending(None)] * 2


async def test_page_of_json_behind_a_link_of_a_packed_file_is_no_file_of_json(build: Any, played: Played) -> None:
    played.answers = {
        "/exports": [{"data": {"id": "p", "url": "/signed/users.zip?sign=canary"}}],
        "/signed/users.zip": [zipped({"a.txt": b"{}"}), {"error": "the export has expired"}],
    }
    text = HEAD + KIND + 'result = { links = "data.url", later = true, unpack = true, name = "users.jsonl" }'
    driver = build(text)
    ready = await driver.poll(Users(), (await driver.submit(Users())).operation_id)
    with pytest.raises(DownloadInvalidError, match="the export has expired"):
        await download(driver, ready.files[0])


async def test_kept_values_reach_later_requests(build: Any, played: Played) -> None:
    played.answers = {
        "/exports": [{"data": {"id": 1}, "shard": "eu 1"}],
        "/eu%201/1": [{"state": "done"}],
        "/eu 1/1": [{"state": "done"}],
    }
    kind = KIND.replace('id = "data.id"', 'id = "data.id", keep = { shard = "shard" }')
    poll = POLL.replace("/exports/{operation_id}", "/{keep.shard}/{operation_id}")
    operation_id, _ = await run(build(HEAD + kind + poll + FILE), Users())
    assert operation_id == "1?shard=eu+1"
    assert played.paths()[-1] == "/eu%201/1"


PAGES = 'result.name = "users.csv"\nresult.pages = { path = "/users", items = "users", '


@pytest.mark.parametrize(
    ("pages", "answers", "expected"),
    [
        (
            'query = { after = "{cursor}" }, next = "next" }',
            {
                "/users": [{"users": [{"id": 1}, {"id": 2}], "next": "b c"}],
                "/users?after=b%20c": [{"users": [{"id": 3}]}],
            },
            b'{"id":1}\n{"id":2}\n{"id":3}\n',
        ),
        (
            'query = { limit = 1 }, next_link = "links.next" }',
            {
                "/users?limit=1": [
                    {"users": [{"id": 1}], "links": {"next": "https://evil.example/x?after=b%20c&v=#y"}}
                ],
                "/users?after=b%20c&v=": [{"users": [{"id": 2}], "links": {}}],
            },
            b'{"id":1}\n{"id":2}\n',
        ),
        (
            'query = { offset = "{offset}" }, size = 2, format = "csv" }',
            {
                "/users?offset=0": [{"users": [{"id": 1, "name": 'a "b"'}, {"id": 2, "name": None}]}],
                "/users?offset=2": [{"users": [{"id": 3}]}],
            },
            b'id,name\n1,"a ""b"""\n2,\n3,\n',
        ),
        (
            'query = { page = "{page}" }, source = "csv" }',
            {
                "/users?page=1": [b'id,"na\nme"\n1,a\n'],
                "/users?page=2": [b'id,"na\nme"\n2,b'],
                "/users?page=3": [b'id,"na\nme"\n'],
            },
            b'id,"na\nme"\n1,a\n2,b\n',
        ),
    ],
    ids=["cursor", "link", "offset", "csv"],
)
async def test_pages_become_one_file(
    build: Any, played: Played, pages: str, answers: dict[str, list[Any]], expected: bytes
) -> None:
    played.answers = {"/exports": [{"data": {"id": 1}}], **answers}
    driver = build(HEAD + KIND + PAGES + pages)
    _, ready = await run(driver, Users())
    assert await download(driver, ready.files[0]) == expected


@pytest.mark.parametrize(
    ("member", "cursor"),
    [
        ("next", "a"),
        ("next", "a\ud800"),
        ("next", "a" * 4097),
        ("next_link", "/x?a\ud800=1"),
        ("next_link", "?" + "a&" * 99),
    ],
    ids=["same", "surrogate", "long", "surrogate-in-link", "parameters"],
)
async def test_next_page_that_cannot_be_asked_for_is_refused(
    build: Any, played: Played, member: str, cursor: str
) -> None:
    played.answers = {"/exports": [{"data": {"id": 1}}], "/users": [{"users": [1], "next": cursor}]}
    query = 'query = { after = "{cursor}" }, ' if member == "next" else ""
    driver = build(HEAD + KIND + PAGES + f'{query}{member} = "next" }}')
    _, ready = await run(driver, Users())
    with pytest.raises(PlatformMalformedError, match="of the next page, at next, "):
        await download(driver, ready.files[0])


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("cut", [0, 3, 60, 150])
async def test_zip_is_joined_with_one_header_and_a_cut_one_is_refused(
    build: Any, played: Played, method: int, cut: int
) -> None:
    rows = "".join(f"{number}\n" for number in range(60_000)).encode()
    packed = zipped({"a/1.csv": b"id\n" + rows, "a/": b"", "a/2.csv": b"id\n7"}, method)
    end = packed.index(b"PK\x01\x02")
    played.answers = {"/exports/1/file": [packed[: end - cut] if cut else packed]}
    driver = build(HEAD + KIND + POLL + FILE + "unpack = true")
    if cut:
        with pytest.raises(DownloadInterruptedError, match="zip archive is cut"):
            await download(driver, RemoteFile("1#1", "x.csv"))
    else:
        assert await download(driver, RemoteFile("1#1", "x.csv")) == b"id\n" + rows + b"7\n"


async def test_body_can_be_a_form_or_graphql(build: Any, played: Played) -> None:
    played.answers = {"/exports": [{"data": {"id": 1}}]}
    json_body = 'json = { list = "{list_id}", fields = "{fields[].{name: @}}" }'
    for body in (
        'form = { list = "{list_id}", n = "{`2`}" }',
        'graphql = { query = "query { x }", variables = { list = "{list_id}" } }',
    ):
        await build(HEAD + KIND.replace(json_body, body) + POLL + FILE).submit(Users())
    assert [body for _, _, body in played.requests] == [
        "list=buyers&n=2",
        {"query": "query { x }", "variables": {"list": "buyers"}},
    ]


TENANT = """
headers = { X-Tenant = "{options.tenant}" }
options.tenant = { default = "t1" }
catalog.lists = { path = "/lists", query = { page = "{page}" }, items = "lists", first_page = 0 }
"""


async def test_cancel_delete_catalog_headers_and_options_are_sent(build: Any, played: Played) -> None:
    played.answers = {
        "/exports/1": [204],
        "/exports/1/file": [204],
        "/lists?page=0": [{"lists": [{"id": 1}]}],
        "/lists?page=1": [{"lists": []}],
    }
    kind = KIND + 'cancel = { method = "DELETE", path = "/exports/{operation_id}" }\n'
    kind += 'delete = { method = "DELETE", path = "/exports/{operation_id}/file" }\n'
    driver = build(HEAD + TENANT + kind + POLL + FILE)
    assert await driver.cancel(Users(), "1")
    await driver.discard(Users(), "1")
    assert await driver.catalog("lists", None) == [{"id": 1}]
    assert [request[:2] for request in played.requests[:2]] == [("DELETE", "/exports/1"), ("DELETE", "/exports/1/file")]
    assert {headers["X-Tenant"] for headers in played.headers} == {"t1"}


def test_wrong_options_and_missing_secrets_are_named(build: Any) -> None:
    with pytest.raises(ConfigError, match=r"connections\.tiny\.options\.region: unknown option"):
        build(HEAD + KIND + POLL + FILE, options={"region": "eu"})
    with pytest.raises(ConfigError, match=r"connections\.tiny\.token: is required by the recipe "):
        build(HEAD + KIND + POLL + FILE, token=None)
