"""`/v1/triggers/{trigger}/dead`: the messages that a trigger could not use."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from arq.connections import ArqRedis

from export_producers.gateway.callers.principals import Role
from export_producers.gateway.options import NamedKey
from export_producers.triggers.configured import ConfiguredTrigger
from export_producers.triggers.dead_letters import DeadLetters
from export_producers.triggers.message import Message
from export_producers.triggers.template import Template
from support.gateway_site import OPTIONS, REQUEST, GatewaySite, open_gateway

PATH = "/v1/triggers/ready/dead"
EVENT = {"specversion": "1.0", "id": "42", "source": "/segments", "type": "ready", "data": {"tag": "t", "at": "gio"}}
TEMPLATE = {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "{data.tag}"}}


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
    for cursor in ("x", f"{10**19 * 9}-0"):  # Redis refuses more than 64 bits
        assert (await gateway.call("GET", f"{PATH}?cursor={cursor}")).status == 400
    assert (await gateway.call("GET", f"{PATH}?limit=51")).status == 400


# Trying again


class Triggers:
    """The triggers of the configuration, which a test changes as an operator would."""

    def __init__(self) -> None:
        self.templates: dict[str, Mapping[str, Any] | None] = {"ready": TEMPLATE | {"export": {"kind": "no.such"}}}

    async def __call__(self) -> dict[str, ConfiguredTrigger]:
        """Returns them."""
        return {
            name: ConfiguredTrigger(None if tree is None else Template(name, tree))
            for name, tree in self.templates.items()
        }


@pytest.fixture
def triggers() -> Triggers:
    return Triggers()


@pytest.fixture
async def site(
    arq_redis: ArqRedis, redis_url: str, namespace: str, triggers: Triggers
) -> AsyncIterator[tuple[GatewaySite, DeadLetters]]:
    """A gateway that knows the configuration of triggers, and the dead letters of one."""
    keys = (
        NamedKey("admin", "secret-of-admin", Role.ADMIN),
        NamedKey("gio", "secret-of-gio", Role.OPERATOR, frozenset({"gio"})),
        NamedKey("ta", "secret-of-ta", Role.OPERATOR, frozenset({"ta"})),
        NamedKey("viewer", "secret-of-viewer", Role.VIEWER),
    )
    options, names = replace(OPTIONS, keys=keys), ("gio", "ta")
    async with open_gateway(arq_redis, redis_url, namespace, options, connections=names, triggers=triggers) as opened:
        await opened.site.redis.hset(opened.site.keys.triggers, mapping={"ready": "{}"})
        yield opened, DeadLetters(arq_redis, opened.site.keys.dead("ready"))


def by(name: str) -> dict[str, dict[str, str]]:
    return {"headers": {"Authorization": f"Bearer secret-of-{name}"}}


async def entry_of(gateway: GatewaySite) -> str:
    (letter,) = (await gateway.call("GET", PATH, **by("admin"))).json["dead_letters"]
    return str(letter["entry"])


async def test_dead_letter_becomes_one_export_after_its_template_was_corrected(
    site: tuple[GatewaySite, DeadLetters], triggers: Triggers
) -> None:
    gateway, dead = site
    await dead.add(Message("7-0", json.dumps(EVENT).encode()), "unknown kind")
    path = f"{PATH}/{await entry_of(gateway)}/again"
    refused = await gateway.call("POST", path, **by("admin"))
    assert (refused.status, refused.json["code"]) == (422, "unusable_message")
    assert "kind" in refused.json["detail"]
    assert await entry_of(gateway), "the dead letter is kept"
    triggers.templates["ready"] = TEMPLATE
    answers = await asyncio.gather(*(gateway.call("POST", path, **by("admin")) for _ in range(5)))
    accepted = [each.json for each in answers if each.status == 202]
    assert {each.status for each in answers} <= {202, 404}
    assert len({each["export_id"] for each in accepted}) == 1
    assert [each["deduplicated"] for each in accepted].count(False) == 1
    status = (await gateway.call("GET", f"/v1/exports/{accepted[0]['export_id']}", **by("admin"))).json
    assert (status["requested_by"], status["request"]["export"]["tag_key"]) == ("trigger:ready", "t")
    assert (await gateway.call("GET", PATH, **by("admin"))).json["dead_letters"] == []
    (act,) = (await gateway.call("GET", "/v1/activity", **by("admin"))).json["entries"][:1]
    assert (act["action"], act["export_id"]) == ("dead_letter_again", accepted[0]["export_id"])


async def test_dead_letter_that_was_enqueued_before_a_crash_makes_no_second_export(
    site: tuple[GatewaySite, DeadLetters], triggers: Triggers
) -> None:
    """The gateway died between the enqueue and the removal: the entry exists again, as if it had not been removed."""
    gateway, dead = site
    triggers.templates["ready"] = None
    await dead.add(Message("", json.dumps(REQUEST).encode()), "has no message id")
    entry = await entry_of(gateway)
    ((_, fields),) = await dead.redis.xrange(dead.stream)
    first = await gateway.call("POST", f"{PATH}/{entry}/again", **by("admin"))
    await dead.redis.delete(dead.stream)
    await dead.redis.xadd(dead.stream, fields, id=entry)
    second = await gateway.call("POST", f"{PATH}/{entry}/again", **by("admin"))
    assert (first.status, first.json["deduplicated"]) == (202, False)
    assert second.json == first.json | {"deduplicated": True}
    assert len(await gateway.site.queue.list_exports()) == 1


async def test_two_messages_that_are_equal_become_two_exports(
    site: tuple[GatewaySite, DeadLetters], triggers: Triggers
) -> None:
    gateway, dead = site
    triggers.templates["ready"] = None
    for _ in range(2):
        await dead.add(Message("5", json.dumps(REQUEST).encode()), "no worker")
    for letter in (await gateway.call("GET", PATH, **by("admin"))).json["dead_letters"]:
        assert (await gateway.call("POST", f"{PATH}/{letter['entry']}/again", **by("admin"))).status == 202
    assert len(await gateway.site.queue.list_exports()) == 2


@pytest.mark.parametrize(
    ("template", "status", "reason"),
    [
        (TEMPLATE, {"gio": 200, "ta": 403}, "may not use this connection"),
        (TEMPLATE | {"connection": "{data.at}"}, {"gio": 403, "ta": 403}, "may request exports of every connection"),
        (None, {"gio": 403, "ta": 403}, "may request exports of every connection"),
    ],
)
async def test_key_of_some_connections_uses_dead_letters_of_triggers_with_such_a_connection(
    site: tuple[GatewaySite, DeadLetters],
    triggers: Triggers,
    template: dict[str, Any] | None,
    status: dict[str, int],
    reason: str,
) -> None:
    gateway, dead = site
    triggers.templates["ready"] = template
    await dead.add(Message("1", b"canary"), "is not JSON")
    entry = await entry_of(gateway)
    for name, expected in status.items():
        listed = await gateway.call("GET", PATH, **by(name))
        assert listed.status == expected
        assert (b"canary" in listed.body) is (expected == 200)
        again = await gateway.call("POST", f"{PATH}/{entry}/again", **by(name))
        assert again.status == (422 if expected == 200 else 403)
        if expected == 403:
            assert reason in listed.json["detail"]
            assert (await gateway.call("DELETE", f"{PATH}/{entry}", **by(name))).status == 403
    assert (await gateway.call("POST", f"{PATH}/{entry}/again", **by("viewer"))).status == 403


async def test_trigger_that_the_gateway_does_not_know_is_named(
    site: tuple[GatewaySite, DeadLetters], triggers: Triggers
) -> None:
    gateway, dead = site
    triggers.templates.clear()
    await dead.add(Message("1", json.dumps(REQUEST).encode()), "x")
    entry = await entry_of(gateway)
    unknown = await gateway.call("POST", f"{PATH}/{entry}/again", **by("admin"))
    assert (unknown.status, unknown.json["code"]) == (501, "trigger_not_configured")
    assert "[triggers.ready]" in unknown.json["detail"]
    assert (await gateway.call("POST", f"{PATH}/1-1/again", **by("admin"))).status in {404, 501}
    assert await entry_of(gateway) == entry
