"""Calls Lua scripts by the one convention that all of them follow.

A script gets its keys in KEYS and one JSON object in ARGV[1]. It answers with a JSON object, with one status word or
stored document, or with a list of stored documents, which may begin with a JSON object.
The comment at the top of each Lua file documents the keys, the fields of the object and the answer.

What the author of a script must know about JSON in Redis (measured with Redis 6.2, 7.0 and Valkey 9.1):

- Integers up to 2^53 are exact in Lua, and `redis.call` writes them in full. `..` and `cjson.encode` keep 14 digits:
  enough for a time in ms, too few for a record's version, which therefore is a string in both directions.
- `cjson.encode` writes an empty table as an object. A script leaves an empty list out of its answer.
- JSON null becomes a value that counts as true in Lua. An argument that is None is left out instead, and is nil in Lua.
- A document that Redis only stores (a status, an event) is one string field. It is neither parsed nor built by Lua.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from arq.connections import ArqRedis
from pydantic_core import from_json, to_json
from redis.exceptions import NoScriptError

from export_worker.redis.lua import script

INDEXES = script("indexes", "past", "batches")
"""The Lua functions for the indexes of exports, for the records of ended ones and for batches.

Scripts of workers and of producers begin with them."""
SHARING = script("sharing")
"""The Lua functions for operations that exports share. The script that enqueues has them after `INDEXES`."""
ROWS = script("rows")
"""The Lua functions that find exports in the indexes. Scripts that list exports have them after `INDEXES`."""
TRANSFERS = script("indexes", "rows", "transfers")
"""Returns the exports that are transferred. The console and the metrics of workers read them."""

Call = tuple[Sequence[str], Mapping[str, object], Sequence[bytes]]
"""The keys and the arguments of one run of a script, and the bytes that it only stores."""


class Script:
    """One Lua script, registered with a client. The client loads it into Redis with the first call.

    Args:
        source: The script's text.
    """

    def __init__(self, redis: ArqRedis, source: str) -> None:
        self._redis = redis
        self._script = redis.register_script(source)

    @property
    def source(self) -> str:
        """The script's text."""
        return str(self._script.script)

    @property
    def sha(self) -> str:
        """The name that Redis gives the script once it is loaded: its SHA-1."""
        return str(self._script.sha)

    async def word(self, keys: Sequence[str], arguments: Mapping[str, object], *stored: bytes) -> str:
        """Runs a script that answers with a status word, and returns the word.

        Args:
            stored: Bytes that the script only stores: ARGV[2] and the following.
        """
        return (await self.value(keys, arguments, *stored)).decode()

    async def value(self, keys: Sequence[str], arguments: Mapping[str, object], *stored: bytes) -> bytes:
        """Runs a script that answers with a status word or a stored document, and returns its bytes."""
        value: bytes = await self._script(keys=keys, args=[encode_arguments(arguments), *stored])
        return value

    async def document(self, keys: Sequence[str], arguments: Mapping[str, object]) -> dict[str, Any]:
        """Runs a script that answers with a JSON object, and returns the object."""
        return decode_document(await self._script(keys=keys, args=[encode_arguments(arguments)]))

    async def values(self, keys: Sequence[str], arguments: Mapping[str, object]) -> list[Any]:
        """Runs a script that answers with a list of stored values, and returns the list."""
        answer: list[Any] = await self._script(keys=keys, args=[encode_arguments(arguments)])
        return answer

    async def with_documents(
        self, keys: Sequence[str], arguments: Mapping[str, object]
    ) -> tuple[dict[str, Any], list[bytes | None]]:
        """Runs a script that answers with a list, and returns its JSON object and the stored documents."""
        head, *documents = await self._script(keys=keys, args=[encode_arguments(arguments)])
        return decode_document(head), documents

    async def answers(self, calls: Sequence[Call]) -> list[bytes]:
        """Runs the script once for each call, in one round trip, and in three if Redis does not have the script."""
        try:
            return await self._pipelined(calls)
        except NoScriptError:  # no call was run
            await self._redis.script_load(self.source)
            return await self._pipelined(calls)

    async def _pipelined(self, calls: Sequence[Call]) -> list[bytes]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for keys, arguments, stored in calls:
                pipe.evalsha(self.sha, len(keys), *keys, encode_arguments(arguments), *stored)  # type: ignore[arg-type]  # bytes are values, too
            answers: list[bytes] = await pipe.execute()
        return answers


def encode_arguments(arguments: Mapping[str, object]) -> str:
    """Returns ARGV[1] of a script: one JSON object, without the fields that are None."""
    return to_json({name: value for name, value in arguments.items() if value is not None}).decode()


def decode_document(answer: bytes) -> dict[str, Any]:
    """Returns the JSON object that a script answered with.

    A byte that is not UTF-8 becomes a lone surrogate: one damaged record must not make the whole answer unreadable.
    `original_bytes` turns such a text into the bytes that Redis has.
    """
    document: dict[str, Any]
    try:
        document = from_json(answer)
    except ValueError:
        # The parser of pydantic is several times faster, but it accepts only UTF-8.
        document = json.loads(answer.decode(errors="surrogateescape"))
    return document


def original_bytes(text: str) -> bytes:
    """Returns the bytes of a text field of an answer, exactly as Redis has them."""
    return text.encode(errors="surrogateescape")
