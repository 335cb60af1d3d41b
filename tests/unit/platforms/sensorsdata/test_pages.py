"""The pages of a list of users: their number for a large group, and servers that return or accept fewer rows."""

import re
from collections.abc import Sequence

import pytest

from export_worker.contract.request import SensorsdataUserGroupUsers
from export_worker.credentials import Redactor
from export_worker.errors import DownloadInterruptedError, PlatformRefusedError
from export_worker.lifecycle.observations import RemoteFile
from export_worker.platforms.base import Driver
from export_worker.platforms.conformance import TOKEN, serve_simulator
from export_worker.platforms.registry import build_driver
from export_worker.platforms.sensorsdata.pages import PageSize
from export_worker.platforms.settings import ConnectionSettings
from support.drivers import sensorsdata_driver
from support.scripted_server import Reply, ScriptedServer, json_replied, replied

EXPORT = SensorsdataUserGroupUsers(group_id=42)
SQL = "/api/sql/query"
MILLION = 1_000_000
REFUSED = json_replied({"error": "the limit is too large"}, status=400)


def queries_for(users: int, *, rows_max: int = 100_000, server_max: int = 10**9, known: bool = True) -> int:
    """Returns the number of queries for a group, for a server that returns at most `server_max` rows."""
    size, count, queries, more = PageSize(10_000, rows_max), 0, 0, True
    while more:
        returned = min(size.rows, server_max, users - count)
        count, queries = count + returned, queries + 1
        more = size.has_more(returned, missing=count < users if known else None)
    assert count == users
    return queries


def test_ten_million_users_take_about_a_hundred_queries() -> None:
    assert queries_for(10 * MILLION) == 101
    assert queries_for(10 * MILLION, rows_max=MILLION) == 12
    assert queries_for(10_000 - 1) == 1


@pytest.mark.parametrize("known", [True, False])
def test_pages_of_server_with_a_smaller_maximum_leave_out_no_user(known: bool) -> None:
    assert queries_for(MILLION, server_max=10_000, known=known) == 101
    assert queries_for(MILLION, server_max=25_000, known=known) in {41, 42}


async def listed(driver: Driver, users: int) -> int:
    """Returns the number of users in the file of the group."""
    async with driver.open_result(
        EXPORT, RemoteFile(f"user-group:42?name=vip_users&user_count={users}", "a.csv")
    ) as download:
        text = b"".join([chunk async for chunk in download.chunks()])
    return len(text.splitlines()) - 1


@pytest.mark.parametrize("secret", ["token", "api_key"])
async def test_large_group_is_read_with_growing_pages(secret: str) -> None:
    async with serve_simulator(lambda app: None) as simulator:
        simulator.world.scenario = simulator.world.scenario.model_copy(update={"rows": 2 * 2_000})
        settings = {"base_url": simulator.url, secret: TOKEN, "page_rows": 2, "page_rows_max": 20}
        connection = ConnectionSettings.model_validate({"platform": "sensorsdata", **settings})
        driver = build_driver("sensors", connection, Redactor())
        assert await listed(driver, 2_000) == 2_000
        await driver.close()
        bodies = [record.body for record in simulator.world.requests if "/sql/query" in record.target]
    # 2 and 99 times 20 and a page of 18: a thousand queries if pages did not grow.
    assert len(bodies) == 101
    if secret == "api_key":
        assert {body["limit"] for body in bodies} == {"2", "20"}


def limits(server: ScriptedServer) -> list[int]:
    return [int(re.findall(r"LIMIT (\d+)", seen.form["q"][0])[0]) for seen in server.seen]


def lines(*keys: int) -> Reply:
    return replied("".join(f'{{"id": {key}}}\n' for key in keys))


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([lines(1, 2), REFUSED, lines(3, 4), lines(5)], [2, 20, 2, 2]),
        ([lines(1, 2), replied('{"error": "memory limit exceeded"}'), lines(3, 4), lines(5)], [2, 20, 2, 2]),
        ([lines(1, 2), replied("", status=504), lines(3, 4), lines(5)], [2, 20, 2, 2]),
        ([lines(1, 2), lines(3, 4), lines(5)], [2, 20, 2]),
    ],
)
async def test_pages_do_not_grow_where_the_server_does_not_return_more(
    replies: Sequence[Reply], expected: list[int]
) -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server, page_rows=2, page_rows_max=100) as sensors:
        server.on(SQL, *replies)
        assert await listed(sensors, 5) == 5
        assert limits(server) == expected


@pytest.mark.parametrize(
    ("replies", "error"),
    [
        ([REFUSED], PlatformRefusedError),
        ([lines(1, 2), REFUSED, REFUSED], PlatformRefusedError),
        ([lines(1, 2), replied('{"id": 3}\n{"error": "lost"}')], Exception),
        ([lines(1, 2), lines(3), replied("")], DownloadInterruptedError),
    ],
)
async def test_query_that_fails_with_the_smallest_page_or_after_rows_raises(
    replies: Sequence[Reply], error: type[Exception]
) -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server, page_rows=2, page_rows_max=100) as sensors:
        server.on(SQL, *replies)
        with pytest.raises(error):
            await listed(sensors, 5)
        assert len(server.seen) == len(replies)
