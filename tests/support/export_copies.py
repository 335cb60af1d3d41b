"""Writes very many exports to Redis: copies of a few exports that the project's own scripts have written.

A copy has the same keys and fields as its original, with another id, number and key, and all its times moved
by the same span. The commands of a copy are bytes of the Redis protocol, of which only these parts differ, so that a
copy takes some microseconds. The Lua functions of the worker add it to the indexes. No format is repeated here.
"""

import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random

from export_producers.filters import facets_of_status
from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.past import HEADER_LINES, Past, pack_body, unpack
from export_worker.contract.redis_keys import Keys, Role
from export_worker.contract.status import Phase, Progress
from export_worker.errors import StepError
from export_worker.lifecycle import endings
from export_worker.redis.claims import ClaimedStep
from export_worker.redis.lua import script
from support.redis_site import MANY, POLICY, REFUSED, UNAVAILABLE, QueueSite

KEY = "order-00000000"
"""The idempotency key and the metadata `order` of an export that is copied. It ends with eight digits."""
KEPT_MS = 7 * 86_400_000
CHUNK_BYTES = 1_000_000
_ISO = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_MS = re.compile(rb"(?<!\d)1\d{12}(?!\d)")
_NEAR = timedelta(days=1)
"""A time that is farther from the creation of an export is none of its times, such as a pause without an end."""

STATES: Sequence[tuple[Phase, StepError | None]] = (
    (Phase.SUCCEEDED, None),
    (Phase.FAILED, REFUSED),
    (Phase.FAILED, UNAVAILABLE),
    (Phase.TRANSFERRING, None),
    (Phase.RUNNING, None),
    (Phase.QUEUED, None),
)
"""Queued last: no later claim may hold them."""
ONE_ATTEMPT = replace(POLICY, max_attempts=1)

Command = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Values:
    """What differs between an export and its copy.

    Args:
        number: See `lua/indexes.lua`.
    """

    export_id: str
    key: str
    created_ms: int
    number: int


@dataclass(frozen=True, slots=True)
class Template:
    """A text of which copies differ in some values.

    Args:
        pieces: The texts between the values.
        fills: Makes the different texts in between from the values of a copy.
        order: The text after each piece but the last.
    """

    pieces: Sequence[bytes]
    fills: Sequence[Callable[[Values], bytes]]
    order: Sequence[int]

    def copy(self, values: Values) -> bytes:
        """Returns the text of a copy."""
        texts = [fill(values) for fill in self.fills]
        parts = [self.pieces[0]]
        for number, piece in zip(self.order, self.pieces[1:], strict=True):
            parts += (texts[number], piece)
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Original:
    """An export that can be copied.

    Args:
        commands: The commands that write it.
        past: Its packed record, if it has ended.
        text: The header, the state and the timeline of the packed record, by lines.
        facets: What the indexes have of the export.
        ended_ms: When it ended; None if it is open.
    """

    values: Values
    keys: Keys
    commands: Template
    past: Past | None
    text: Template
    facets: dict[str, str]
    ended_ms: int | None

    def copy(self, values: Values) -> bytes:
        """Returns the commands that write a copy."""
        commands = self.commands.copy(values)
        return commands if self.past is None else commands + self._packed(self.past, values)

    def _packed(self, past: Past, values: Values) -> bytes:
        *header, state, timeline = self.text.copy(values).split(b"\n", HEADER_LINES + 1)
        body = pack_body(values.export_id, state, timeline.split(b"\n"), trace=past.trace)
        value = b"\n".join((*header, body))
        return _encoded((b"SET", self.keys.past(values.export_id).encode(), value, b"PX", b"%d" % KEPT_MS))


async def read_original(site: QueueSite, export_id: str, key: str) -> Original:
    """Reads an export with its index entries, from a namespace with a few exports: every key is read."""
    packed = await site.redis.get(site.keys.past(export_id))
    past = None if packed is None else unpack(export_id, packed)
    commands = [command async for command in _commands(site, export_id, key)]
    status = await site.queue.status(export_id)
    number = int((await site.record(export_id))["number"])
    values = Values(export_id, key, epoch_ms(status.created_at), number)
    text = b"" if past is None else past.header.text + b"\n".join((past.state, *past.timeline))
    written = _template(site.keys, values, b"".join(map(_encoded, commands)))
    facets = facets_of_status(status) | {"phase": status.phase.value}
    ended_ms = None if status.finished_at is None else epoch_ms(status.finished_at)
    return Original(values, site.keys, written, past, _template(site.keys, values, text), facets, ended_ms)


def _template(keys: Keys, values: Values, blob: bytes) -> Template:
    tokens = _tokens(keys, values, blob)
    pattern = re.compile(b"|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))
    found = list(pattern.finditer(blob))
    starts, ends = [0, *(match.end() for match in found)], [*(match.start() for match in found), len(blob)]
    pieces = [blob[start:end] for start, end in zip(starts, ends, strict=True)]
    numbers = {token: number for number, token in enumerate(tokens)}
    return Template(pieces, list(tokens.values()), [numbers[match[0]] for match in found])


def _tokens(keys: Keys, values: Values, blob: bytes) -> dict[bytes, Callable[[Values], bytes]]:
    """Returns each text that differs in a copy, with what makes it. Every text keeps its length."""

    tokens: dict[bytes, Callable[[Values], bytes]] = {
        values.export_id.encode(): lambda copy: copy.export_id.encode(),
        values.key.encode(): lambda copy: copy.key.encode(),
        str(values.number).encode(): lambda copy: str(copy.number).encode(),
        keys.dedupe(values.key).encode(): lambda copy: keys.dedupe(copy.key).encode(),
    }
    for text in {match[0] for match in _ISO.finditer(blob)}:
        tokens[text] = _moved_iso(epoch_ms(datetime.fromisoformat(text.decode())) - values.created_ms)
    for text in {match[0] for match in _MS.finditer(blob)}:
        offset_ms = int(text) - values.created_ms
        if abs(offset_ms) < _NEAR / timedelta(milliseconds=1):
            tokens[text] = _moved_ms(offset_ms)
    return tokens


def _moved_iso(offset_ms: int) -> Callable[[Values], bytes]:
    return lambda copy: isoformat(datetime.fromtimestamp((copy.created_ms + offset_ms) / 1000, UTC)).encode()


def _moved_ms(offset_ms: int) -> Callable[[Values], bytes]:
    return lambda copy: b"%d" % (copy.created_ms + offset_ms)


def _encoded(command: Command) -> bytes:
    parts = [b"$%d\r\n%b\r\n" % (len(part), part) for part in command]
    return b"*%d\r\n" % len(command) + b"".join(parts)


async def _commands(site: QueueSite, export_id: str, key: str) -> AsyncIterator[Command]:
    """Yields the commands that write everything that belongs to an export, without the rows of the indexes."""
    own, packed = {site.keys.dedupe(key).encode()}, site.keys.past(export_id).encode()
    for name in sorted([name async for name in site.redis.scan_iter(f"*{site.keys.prefix}*", count=1000)]):
        kind: bytes = await site.redis.type(name)
        is_own = (export_id.encode() in name or name in own) and name != packed
        if kind == b"zset":
            for member, score in await site.redis.zrange(name, 0, -1, withscores=True):
                if export_id.encode() in member:
                    yield (b"ZADD", name, b"%d" % score, member)
        elif is_own or (kind == b"string" and export_id.encode() in await site.redis.get(name)):
            yield await _own_command(site, name, kind)
            if await site.redis.ttl(name) >= 0:
                yield (b"PEXPIRE", name, b"%d" % KEPT_MS)


async def _own_command(site: QueueSite, name: bytes, kind: bytes) -> Command:
    match kind:
        case b"hash":
            fields = sorted((await site.redis.hgetall(name)).items())
            return (b"HSET", name, *(part for pair in fields for part in pair))
        case b"list":
            return (b"RPUSH", name, *await site.redis.lrange(name, 0, -1))
        case _:
            return (b"SET", name, await site.redis.get(name))


_INDEX = (
    script("indexes")
    + """
local args = cjson.decode(ARGV[1])
for _, each in ipairs(args.copies) do
  local number = add_export(args.prefix, each[1], each[2], each[3])
  if number ~= each[4] then
    error('the next number is ' .. full(number))
  end
  add_metadata(args.prefix, number, {order = each[5]})
  if each[6] then
    log_end(args.prefix, number, each[6], 1)
  end
end
"""
)


def index_command(keys: Keys, copies: Sequence[tuple[Original, Values]]) -> bytes:
    """Returns the command that adds copies to the indexes. They are in the order of their times and numbers."""
    rows = [
        [
            values.export_id,
            values.created_ms,
            original.facets,
            values.number,
            values.key,
            original.ended_ms and original.ended_ms + values.created_ms - original.values.created_ms,
        ]
        for original, values in copies
    ]
    arguments = json.dumps({"prefix": keys.prefix, "copies": [row if row[-1] else row[:-1] for row in rows]})
    return _encoded((b"EVAL", _INDEX.encode(), b"0", arguments.encode()))


async def first_number(site: QueueSite) -> int:
    """Returns the number of the next export."""
    return int(await site.redis.hget(site.keys.numbers, "next"))


def random_values(draw: Random, number: int, key: int, created_ms: int) -> Values:
    """Returns the values of a new copy with a number, and a number of its key."""
    return Values(f"{draw.getrandbits(128):032x}", f"order-{key:08d}", created_ms, number)


def write(host: str, port: int, commands: Iterable[bytes]) -> None:
    """Sends commands without waiting for the answers of Redis, and returns when Redis has run all of them."""
    with socket.create_connection((host, port)) as connection:
        connection.sendall(_encoded((b"CLIENT", b"REPLY", b"OFF")))
        for chunk in _chunks(commands):
            connection.sendall(chunk)
        connection.sendall(_encoded((b"CLIENT", b"REPLY", b"ON")))
        assert connection.recv(5) == b"+OK\r\n"


def _chunks(commands: Iterable[bytes]) -> Iterator[bytes]:
    waiting, size = list[bytes](), 0
    for each in commands:
        waiting.append(each)
        size += len(each)
        if size >= CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


async def write_originals(site: QueueSite, connections: Sequence[str]) -> dict[Phase, list[Original]]:
    """Accepts exports on each connection, runs them by the worker's scripts, and returns them by phase."""
    site.limits = dict.fromkeys(connections, MANY)
    wanted = [(connection, phase, error) for phase, error in STATES for connection in connections]
    keys = [f"{KEY[:-8]}{number:08d}" for number in range(len(wanted))]
    export_ids = [await _run_to(site, *each, key) for each, key in zip(wanted, keys, strict=True)]
    found: dict[Phase, list[Original]] = {}
    for (_, phase, _), export_id, key in zip(wanted, export_ids, keys, strict=True):
        found.setdefault(phase, []).append(await read_original(site, export_id, key))
    return found


async def _run_to(site: QueueSite, connection: str, phase: Phase, error: StepError | None, key: str) -> str:
    """Returns an export in a phase. Later claims also hold the steps of earlier exports, as busy workers do."""
    export_id = await site.enqueue(connection, idempotency_key=key, metadata={"order": key})
    if phase is Phase.QUEUED:
        return export_id
    claimed = await _claimed(site, export_id)
    if error is not None:
        await site.commit(claimed, endings.after_failure(claimed.export, error, site.moment(), ONE_ATTEMPT))
        return export_id
    await site.submit(claimed)
    claimed = await _claimed(site, export_id)
    if phase is Phase.RUNNING:
        await site.pend(claimed)
        return export_id
    await site.ready(claimed)
    claimed = await _claimed(site, export_id, "transfer")
    if phase is Phase.TRANSFERRING:
        await site.renew(claimed, Progress(percent=40.0, bytes_done=400, bytes_total=1000, files_total=1))
    else:
        await site.succeed(claimed)
    return export_id


async def _claimed(site: QueueSite, export_id: str, role: Role = "control") -> ClaimedStep:
    (found,) = [each for each in await site.claim(role=role) if each.export.export_id == export_id]
    return found
