"""The commands `dead-letters`: messages that a trigger could not use are listed, tried again and dropped."""

import asyncio
import json
from typing import Any

from arq.connections import ArqRedis

from export_producers.triggers.dead_letters import DeadLetters
from export_producers.triggers.message import Message
from export_worker.contract.redis_keys import Keys
from support.worker_site import Site

EVENT = {"specversion": "1.0", "id": "42", "source": "/segments", "type": "ready", "data": {"tag": "t"}}


def configure(site: Site, tag: str) -> None:
    """Gives the trigger a template that takes the tag from a field of the data."""
    request = {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": f"{{data.{tag}}}"}}
    trigger = {"type": "redis-stream", "stream": f"{site.namespace}:in", "request": request}
    site.settings = {"triggers": {"ready": trigger}}


async def test_dead_letter_is_tried_again_after_its_template_was_corrected(site: Site, arq_redis: ArqRedis) -> None:
    async def run(*words: str) -> Any:
        return await asyncio.to_thread(site.command, "dead-letters", *words)

    configure(site, "tga")
    dead = DeadLetters(arq_redis, Keys(site.namespace).dead("ready"))
    for body in (b"no json", json.dumps(EVENT).encode()):
        await dead.add(Message("7-0", body), "export.tag_key: is required")
    newest, oldest = json.loads((await run("list", "ready", "--json")).stdout)
    assert (newest["message"], oldest["message"]) == (json.dumps(EVENT), "no json")
    refused = await run("again", "ready", newest["entry"])
    assert (refused.status, "error: message: " in refused.stderr) == (2, True)
    configure(site, "tag")
    accepted = json.loads((await run("again", "ready", newest["entry"], "--json")).stdout)
    async with site.queue() as queue:
        assert (await queue.status(accepted["export_id"])).requested_by == "trigger:ready"
    assert (await run("drop", "ready", oldest["entry"])).stdout == f"dropped {oldest['entry']}\n"
    assert (await run("list", "ready")).stdout == "the trigger has no dead letter\n"
    for words in (("again", "ready", newest["entry"]), ("drop", "ready", "x"), ("list", "raedy")):
        assert (await run(*words)).status == 2
