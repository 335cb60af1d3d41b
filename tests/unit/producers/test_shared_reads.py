"""One read for all callers: how old its document may be, and who waits for the next one."""

import asyncio

import pytest

from export_producers.reads.shared import SharedReads


class Source:
    """Counts its reads. Each ends when the test lets it."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()
        self.fails = False

    async def read(self) -> int:
        """Returns the number of this read."""
        self.begun += 1
        number = self.begun
        await self.may_end.wait()
        if self.fails:
            raise OSError("unreachable")
        return number


async def turn() -> None:
    """Lets every task run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_only_the_first_caller_waits_while_callers_keep_asking() -> None:
    now_s, source = [0.0], Source()
    reads: SharedReads[int] = SharedReads(4.0, lambda: now_s[0])
    first = [asyncio.create_task(reads.get("a", source.read)) for _ in range(2)]
    await turn()
    assert not any(task.done() for task in first)
    source.may_end.set()
    assert await asyncio.gather(*first) == [1, 1]
    source.may_end.clear()
    now_s[0] = 2.0
    assert [await reads.get("a", source.read) for _ in range(2)] == [1, 1], "no caller waits for the next read"
    await turn()
    assert source.begun == 2
    now_s[0] = 4.0
    waiting = asyncio.create_task(reads.get("a", source.read))
    await turn()
    assert not waiting.done(), "a document that is too old is not returned, even while its successor is read"
    source.may_end.set()
    assert await waiting == 2
    now_s[0] = 10.0
    assert (await reads.get("a", source.read), source.begun) == (3, 3), "no caller has asked for some time"


async def test_failed_read_ahead_is_repeated_and_no_caller_sees_it() -> None:
    now_s, source = [0.0], Source()
    source.may_end.set()
    reads: SharedReads[int] = SharedReads(4.0, lambda: now_s[0])
    assert await reads.get("a", source.read) == 1
    now_s[0], source.fails = 2.0, True
    assert await reads.get("a", source.read) == 1
    await turn()
    assert (await reads.get("a", source.read), source.begun) == (1, 2)
    now_s[0] = 4.0
    with pytest.raises(OSError, match="unreachable"):
        await reads.get("a", source.read)
    source.fails = False
    assert await reads.get("a", source.read) == source.begun
