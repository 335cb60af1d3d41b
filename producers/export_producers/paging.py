"""Reads the pages of a listing from an index in Redis."""

from collections.abc import Iterable

from arq.connections import ArqRedis

from export_producers.records import Position


async def positions_after(redis: ArqRedis, index: str, most: int, position: Position | None) -> list[Position]:
    """Returns up to `most` entries of an index after a position, newest first.

    Entries of one millisecond are sorted by id.

    Args:
        position: The last entry of the previous page; None for the first page.
    """
    if position is None:
        return _positions(await redis.zrevrange(index, 0, most - 1, withscores=True))
    created_ms = position.created_ms
    async with redis.pipeline(transaction=False) as pipe:
        pipe.zrevrangebyscore(index, created_ms, created_ms, withscores=True)
        pipe.zrevrangebyscore(index, f"({created_ms}", "-inf", start=0, num=most, withscores=True)
        same, older = map(_positions, await pipe.execute())
    return [*(entry for entry in same if entry.export_id < position.export_id), *older][:most]


def _positions(scored: Iterable[tuple[bytes, float]]) -> list[Position]:
    return [Position(int(created_ms), export_id.decode()) for export_id, created_ms in scored]
