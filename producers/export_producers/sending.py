"""Runs one script many times, with one round trip."""

from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError

from export_worker.redis.scripts import Script, decode_document, encode_arguments

Call = tuple[list[str], dict[str, object]]
"""The keys and the argument of one call."""


async def run_each(client: Any, script: Script, calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Returns the script's answer to each call. A Redis that does not have the script yet gets it first.

    Then no call has changed anything. After a failure in between, all calls are repeated.
    """
    if len(calls) == 1:
        ((keys, arguments),) = calls
        return [await script.document(keys, arguments)]
    try:
        return await _pipelined(client, script, calls)
    except NoScriptError:
        await client.script_load(script.source)
        return await _pipelined(client, script, calls)


async def _pipelined(client: Any, script: Script, calls: Sequence[Call]) -> list[dict[str, Any]]:
    async with client.pipeline(transaction=False) as pipe:
        for keys, arguments in calls:
            pipe.evalsha(script.sha, len(keys), *keys, encode_arguments(arguments))
        return [decode_document(answer) for answer in await pipe.execute()]
