"""The copies of exports for the benchmark of the console are what the project's own scripts would have written."""

from itertools import count
from random import Random
from urllib.parse import urlsplit

from export_producers.filters import ExportFilter
from export_worker.contract.model import epoch_ms
from export_worker.contract.status import Phase
from support.export_copies import first_number, index_command, random_values, write, write_originals
from support.redis_site import QueueSite

CONNECTIONS = ("gio", "ta")


async def test_copy_with_the_values_of_its_original_is_equal_to_it(queue_site: QueueSite, redis_url: str) -> None:
    shares = await write_originals(queue_site, CONNECTIONS)
    before = await queue_site.everything()
    of_exports = [each for originals in shares.values() for each in originals]
    commands = b"".join(each.copy(each.values) for each in of_exports)
    rewritten = [name for name in before if name.encode() in commands]
    assert {name.split(":")[1] for name in rewritten} >= {"export", "timeline", "open", "past"}
    await queue_site.redis.delete(*rewritten)
    server = urlsplit(redis_url)
    write(str(server.hostname), server.port or 0, [each.copy(each.values) for each in of_exports])
    assert await queue_site.everything() == before


async def test_copies_are_listed_counted_and_explained(queue_site: QueueSite, redis_url: str) -> None:
    shares = await write_originals(queue_site, CONNECTIONS)
    server, draw = urlsplit(redis_url), Random(1)
    now_ms = epoch_ms(queue_site.now)
    numbers = count(await first_number(queue_site))
    keys = count(100)
    copies = {
        phase: [
            (each, random_values(draw, next(numbers), next(keys), now_ms + place)) for place, each in enumerate(share)
        ]
        for phase, share in shares.items()
    }
    every = [pair for share in copies.values() for pair in share]
    commands = [*(original.copy(values) for original, values in every), index_command(queue_site.keys, every)]
    write(str(server.hostname), server.port or 0, commands)
    overview = await queue_site.queue.reads.overview()
    assert overview.complete
    for phase, share in copies.items():
        assert overview.phases[phase] == 2 * len(shares[phase])
        for original, values in share:
            status = await queue_site.queue.status(values.export_id)
            assert (status.phase, epoch_ms(status.created_at)) == (phase, values.created_ms)
            assert status.metadata == {"order": values.key}
            assert await queue_site.queue.explain(values.export_id)
            timeline = await queue_site.queue.timeline(values.export_id)
            assert len(timeline) == len(await queue_site.queue.timeline(original.values.export_id))
            found = await queue_site.queue.page(where=ExportFilter(search=values.key))
            assert [each.export_id for each in found.statuses] == [values.export_id]
    assert overview.phases[Phase.CANCELLED] == 0
