"""`/v1/triggers/{trigger}/dead`: the messages that a trigger could not use."""

from collections.abc import AsyncIterator

import pytest
from arq.connections import ArqRedis

from export_producers.triggers.dead_letters import DeadLetters
from export_producers.triggers.message import Message
from support.gateway_site import GatewaySite, open_gateway

PATH = "/v1/triggers/ready/dead"


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as opened:
        keys = opened.site.keys
        await opened.site.redis.hset(keys.triggers, mapping={"ready": "{}"})
        dead = DeadLetters(arq_redis, keys.dead("ready"))
        for number in range(3):
            await dead.add(Message(f"m{number}", b"<script>\xff" + b"x" * 70_000), "no such connection")
        yield opened


async def test_dead_letters_are_listed_by_pages_and_cut(gateway: GatewaySite) -> None:
    first = await gateway.call("GET", f"{PATH}?limit=2")
    assert [letter["message_id"] for letter in first.json["dead_letters"]] == ["m2", "m1"]
    letter = first.json["dead_letters"][0]
    assert (letter["reason"], len(letter["message"]), letter["complete"]) == ("no such connection", 65_536, False)
    second = await gateway.call("GET", f"{PATH}?limit=2&cursor={first.json['next_cursor']}")
    assert [letter["message_id"] for letter in second.json["dead_letters"]] == ["m0"]
    assert second.json["next_cursor"] is None


async def test_dead_letter_is_dropped_once(gateway: GatewaySite) -> None:
    entry = (await gateway.call("GET", PATH)).json["dead_letters"][0]["entry"]
    assert (await gateway.call("DELETE", f"{PATH}/{entry}")).status == 204
    assert (await gateway.call("DELETE", f"{PATH}/{entry}")).status == 404
    assert len((await gateway.call("GET", PATH)).json["dead_letters"]) == 2


async def test_unknown_trigger_entry_and_cursor_are_refused(gateway: GatewaySite) -> None:
    unknown = await gateway.call("GET", "/v1/triggers/raedy/dead")
    assert (unknown.status, "did you mean ready" in unknown.json["detail"]) == (404, True)
    assert (await gateway.call("DELETE", f"{PATH}/x")).status == 404
    assert (await gateway.call("GET", f"{PATH}?cursor=x")).status == 400
    assert (await gateway.call("GET", f"{PATH}?limit=51")).status == 400
