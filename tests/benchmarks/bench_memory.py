"""Measures the memory of waiting and of ended exports in a Redis of their own, by key and by the growth of the server.

    make bench-memory ARGS="--waiting 4000 --ended 4000"
    make bench-memory ARGS="--whole --waiting 100000 --ended 1000000"

The exports are accepted and run by the project's own scripts, with requests, keys, checksums and timelines as long as
those of GrowingIO. The growth is that of the server's memory between a number of exports and twice as many, so that
what does not grow with the exports is left out. Indexes have rows for 4,000 exports at a time, so multiples of it are
exact.

With `--whole`, one Redis has all these exports at once. Some thousands of the ended ones are run; the others are copies
of their records, with ids, rows in the indexes and entries in the log of ended exports of their own.
"""

import asyncio
import logging
import re
import tempfile
from base64 import b64encode
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import click

from export_producers.filters import ExportFilter
from export_worker.contract.phase import Phase
from export_worker.contract.request import ExportRequest, GrowingioSegmentUsers
from export_worker.contract.status import ManifestObject
from export_worker.demo.processes import redis_server
from export_worker.lifecycle import transitions
from export_worker.lifecycle.export import Running, Transferring
from export_worker.lifecycle.observations import Ready, RemoteFile, Stored, Submitted
from export_worker.redis.claims import ClaimedStep
from export_worker.redis.client import close_redis, open_redis
from export_worker.redis.lua import script
from export_worker.redis.scripts import Script
from support.redis_site import MANY, POLICY, SINKS, QueueSite, open_site

EXPORT_ID = re.compile(rb"[0-9a-f]{32}")
SHORT_LIVED = re.compile(rb":(changes|to-deliver:|clock|contact|rate:|sweep|spared|delivered:)")
BATCH = 200
RUN = 2000
"""Ended exports that are run with `--whole`, before they are copied."""
COPIES = 500
"""Copies that one call of the script makes."""
KEPT_MS = 7 * 86_400_000
COPY = (
    script("indexes", "past")
    + """
local args = cjson.decode(ARGV[1])
for place = args.first, args.first + args.count - 1 do
  local value = redis.call('GET', args.prefix .. 'past:' .. args.templates[place % #args.templates + 1])
  local header, ended_ms = past_header(value), math.floor(args.from_ms + args.step_ms * place)
  local body = select(13, string.match(value, past_pattern .. '(.*)$'))
  local id = string.sub(redis.sha1hex(args.prefix .. place), 1, 32)
  header.error = header.error ~= '' and header.error or nil
  header.number = add_export(args.prefix, id, ended_ms - 60000, header)
  log_end(args.prefix, header.number, ended_ms, tonumber(header.generation))
  write_past(args.prefix, id, header, body, args.kept_ms)
end
return 'copied'
"""
)
FILE_NAME = "下载用户列表.csv"


async def measure(waiting: int, ended: int) -> None:
    """Prints both tables."""
    logging.disable(logging.WARNING)
    for what, count, add in (("waiting", waiting, _accept), ("ended", ended, _run)):
        with tempfile.TemporaryDirectory() as directory:
            async with redis_server(Path(directory), None) as url:
                client = open_redis(url)
                async with open_site(client, url, "exports") as site:
                    site.limits = {"gio": MANY}
                    await _measure_one(site, what, count, add)
                await close_redis(client)


async def measure_whole(waiting: int, ended: int) -> None:
    """Fills one Redis, and prints its memory and what a listing counts."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as directory:
        async with redis_server(Path(directory), None) as url:
            client = open_redis(url)
            async with open_site(client, url, "exports") as site:
                site.limits = {"gio": MANY}
                await _run(site, RUN)
                await _copy(site, ended - RUN)
                for _ in range(0, waiting, BATCH):
                    await _accept(site, BATCH)
                await site.redis.delete(site.keys.changes, *map(site.keys.outbox, SINKS))
                await _print_whole(site)
            await close_redis(client)


async def _copy(site: QueueSite, count: int) -> None:
    """Copies the records of ended exports, each with another id, and its end within the time that they are kept."""
    templates = [
        key.decode().removeprefix(site.keys.past("")) async for key in site.redis.scan_iter(site.keys.past("*"))
    ]
    copying = Script(site.redis, COPY)
    for first in range(0, count, COPIES):
        arguments = {
            "prefix": site.keys.prefix,
            "templates": templates,
            "first": first,
            "count": min(COPIES, count - first),
            "from_ms": site.now_ms - KEPT_MS,
            "step_ms": KEPT_MS / count,
            "kept_ms": KEPT_MS,
        }
        await copying.word([], arguments)


async def _print_whole(site: QueueSite) -> None:
    memory, keys = await site.redis.info("memory"), await site.redis.dbsize()
    counts = [(await site.queue.page(limit=1, where=ExportFilter(phase=each))).total or 0 for each in Phase]
    click.echo(f"{dict(zip(map(str, Phase), counts, strict=True))}, {keys} keys")
    for name in ("used_memory", "used_memory_peak", "used_memory_rss"):
        click.echo(f"  {name:<18} {memory[name] / 2**20:8.1f} MiB")


async def _measure_one(
    site: QueueSite, what: str, count: int, add: Callable[[QueueSite, int], Awaitable[None]]
) -> None:
    sizes = []
    for _ in range(2):
        await add(site, count)
        await site.redis.delete(site.keys.changes, *map(site.keys.outbox, SINKS))
        sizes.append((await site.redis.info("memory"))["used_memory"])
    click.echo(f"{2 * count} {what} exports")
    for kind, (total, keys) in sorted((await _by_key(site.redis)).items(), key=lambda item: -item[1][0]):
        click.echo(f"  {kind:<34} {total / 2 / count:7.0f} B per export ({keys} keys)")
    click.echo(f"  {'the server, each further export':<34} {(sizes[1] - sizes[0]) / count:7.0f} B")


async def _by_key(redis: Any) -> dict[str, tuple[int, int]]:
    """Returns the bytes and the number of keys: of the keys of exports without their ids, of indexes, of the others."""
    found: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    async for key in redis.scan_iter(count=1000):
        name = "others" if SHORT_LIVED.search(key) else "queue and indexes"
        kind = EXPORT_ID.sub(b"ID", key).decode() if EXPORT_ID.search(key) else name
        total, keys = found[kind]
        found[kind] = total + await redis.memory_usage(key, samples=0), keys + 1
    return found


async def _accept(site: QueueSite, count: int) -> None:
    export = GrowingioSegmentUsers(project_id="WlGk4Daj", segment_id="qgQMXnD3")
    await site.queue.enqueue_many([ExportRequest(connection="gio", export=export)] * count)
    site.catch_up()


async def _run(site: QueueSite, count: int) -> None:
    random = Random(1)
    for _ in range(0, count, BATCH):
        await _accept(site, BATCH)
        for claimed in await site.claim(BATCH):
            operation = b64encode(random.randbytes(30)).decode()
            seen = Submitted(operation, "EXPORTING", done=True)
            await site.commit(claimed, transitions.after_submit(claimed.export, seen, site.moment(), POLICY))
        for claimed in await site.claim(BATCH):
            await _finish_operation(site, claimed)
        for claimed in await site.claim(BATCH, "transfer"):
            await _finish_transfer(site, claimed, random)


async def _finish_operation(site: QueueSite, claimed: ClaimedStep) -> None:
    state = claimed.export.state
    assert isinstance(state, Running)
    seen = Ready("FINISH", (RemoteFile(f"/jobs-results/downloads/{FILE_NAME}", FILE_NAME),))
    await site.commit(claimed, transitions.after_poll(claimed.export, state, seen, site.moment(), POLICY))


async def _finish_transfer(site: QueueSite, claimed: ClaimedStep, random: Random) -> None:
    export, folder = claimed.export, f"growingio.segment_users/dt=2026-11-30/{claimed.export.export_id}"
    checksum, size = f"CRC64NVME:{b64encode(random.randbytes(8)).decode()}", random.randrange(10**6, 10**9)
    stored = ManifestObject(
        uri=f"s3://company-exports/{folder}/{FILE_NAME}",
        bucket="company-exports",
        key=f"{folder}/{FILE_NAME}",
        bytes=size,
        etag=random.randbytes(16).hex(),
        checksum=checksum,
        file_name=FILE_NAME,
        source_uri=f"/jobs-results/downloads/{FILE_NAME}",
        source_bytes=size,
        source_checksum=checksum,
    )
    assert isinstance(export.state, Transferring)
    decision = transitions.after_files(export, export.state, [stored], site.moment())
    claimed = await site.store.checkpoint(claimed, decision, site.now)
    assert isinstance(claimed.export.state, Transferring)
    seen = Stored((stored,), f"s3://company-exports/{folder}/_manifest.json")
    await site.commit(claimed, transitions.after_transfer(claimed.export, claimed.export.state, seen, site.moment()))


@click.command()
@click.option("--waiting", type=int, default=4000, show_default=True, help="Half of the exports that wait.")
@click.option("--ended", type=int, default=4000, show_default=True, help="Half of the exports that end.")
@click.option("--whole", is_flag=True, help="Fill one Redis with so many waiting and so many ended exports.")
def main(waiting: int, ended: int, *, whole: bool) -> None:
    """Measures the memory and prints it."""
    asyncio.run(measure_whole(waiting, ended) if whole else measure(waiting, ended))


if __name__ == "__main__":
    main()
