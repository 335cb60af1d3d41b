"""Lists of the exports that have not ended: three phases, merged in the order of creation."""

from collections.abc import AsyncIterator

import pytest
from arq.connections import ArqRedis

from export_worker.errors import PlatformUnavailableError
from support.console_pages import text
from support.gateway_site import GatewaySite, open_gateway
from support.redis_monitor import commands_during

TEMPORARY = PlatformUnavailableError("HTTP 503")


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as opened:
        yield opened


async def mixed(gateway: GatewaySite) -> list[str]:
    """Returns open exports in every phase, the newest first, with ended ones between them."""
    site, found = gateway.site, list[str]()
    for _ in range(3):
        found.append(await site.transferring())
        await site.claim(role="transfer")
        await site.failed(1, TEMPORARY)
        found.append(await site.running())
        await site.claim()
    found += [await site.enqueue() for _ in range(3)]
    return found[::-1]


@pytest.mark.parametrize("limit", [1, 2, 4, 50])
async def test_pages_have_every_open_export_once_and_newest_first(gateway: GatewaySite, limit: int) -> None:
    wanted, found, path = await mixed(gateway), list[str](), f"/v1/exports?phase=open&limit={limit}"
    cursor = ""
    for _ in range(len(wanted) + 1):
        answer = (await gateway.call("GET", path + cursor)).json
        assert answer["total"] == len(wanted)
        assert len(answer["exports"]) <= limit
        found += [status["export_id"] for status in answer["exports"]]
        if answer["next_cursor"] is None:
            break
        cursor = f"&cursor={answer['next_cursor']}"
    assert found == wanted


async def test_other_conditions_hold_as_well(gateway: GatewaySite) -> None:
    wanted = await mixed(gateway)
    for query, expected in (("connection=none", []), ("error=timeout", []), (f"q={wanted[2]}", [wanted[2]])):
        answer = (await gateway.call("GET", f"/v1/exports?phase=open&{query}")).json
        assert [status["export_id"] for status in answer["exports"]] == expected, query


async def test_page_of_open_exports_reads_three_indexes(gateway: GatewaySite, redis_url: str) -> None:
    await gateway.enqueue()
    await gateway.call("GET", "/v1/exports?phase=open")  # the script is in Redis
    found = await commands_during(redis_url, gateway.call("GET", "/v1/exports?phase=open"))
    assert found == ["EVALSHA", "EVALSHA", "EVALSHA"]


async def test_console_lists_open_exports_and_offers_to_cancel_them(gateway: GatewaySite) -> None:
    wanted = await mixed(gateway)
    page = text(await gateway.call("GET", "/console/exports?phase=open"))
    assert all(f'id="export-{each}"' in page for each in wanted)
    assert "export-worker list --phase open" in page
    counted = text(await gateway.call("GET", "/console/bulk/new?action=cancel&all=1&phase=open"))
    assert f"Cancel {len(wanted)} export(s)?" in counted
