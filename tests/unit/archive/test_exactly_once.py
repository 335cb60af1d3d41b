"""Every ended export is in exactly one row of the archive, wherever workers die, and however two of them interleave.

The store is an S3 in memory behind a real boto3 client. Each of its calls is a point: the first worker dies before it,
after it, or is held there while a second worker archives the same hour.
"""

import asyncio
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from itertools import count
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from pyarrow import parquet

from explore.memory_s3 import MemoryS3, S3Request, refusal
from export_worker.archive import hours, objects
from export_worker.archive.hours import ArchivedHour, HourArchiver
from export_worker.archive.layout import ArchiveFolder
from export_worker.archive.rows import EndedExport
from export_worker.contract.model import epoch_ms
from export_worker.contract.status import Phase, Status
from export_worker.redis.ended_log import EndedEntry
from export_worker.s3.client import build_client
from export_worker.s3.endpoints import Endpoint
from export_worker.s3.store import S3Store
from support.s3_server import s3_credentials

START = datetime(2026, 11, 30, 22, tzinfo=UTC)
FOLDER = ArchiveFolder("bucket", "history/", "exports")
ENTRIES = [EndedEntry(f"{number:032x}", epoch_ms(START) + number, 1 + number % 2, number) for number in range(7)]
IDENTITIES = [(entry.export_id, entry.generation) for entry in ENTRIES]


class Killed(BaseException):
    """The process of the worker has died."""


class StrictS3(MemoryS3):
    """A store that may refuse conditional writes."""

    conditional = True

    def _put(self, request: S3Request) -> Any:
        refused = request.create_only and not self.conditional
        return refusal(501, "NotImplemented") if refused else super()._put(request)

    def _complete(self, request: S3Request, upload: Any) -> Any:
        refused = request.create_only and not self.conditional
        return refusal(501, "NotImplemented") if refused else super()._complete(request, upload)


@dataclass
class Log:
    """The log of one hour, and the records of its exports."""

    entries: Sequence[EndedEntry] = tuple(ENTRIES)
    keeps_records: bool = True
    may_close: bool = True
    closed: list[int] = field(default_factory=list)

    async def hours(self) -> list[int]:
        return [epoch_ms(START)]

    async def close(self, hour_ms: int) -> bool:
        self.closed += [hour_ms] * self.may_close
        return self.may_close

    async def length(self, hour_ms: int) -> int:
        assert hour_ms in self.closed, "an hour that is not closed may still grow"
        return len(self.entries)

    async def of_hour(self, hour_ms: int, first: int, limit: int) -> Sequence[EndedEntry]:
        return self.entries[first : first + limit]

    async def read(self, entries: Sequence[EndedEntry]) -> list[EndedExport | None]:
        return [EndedExport(status_of(entry)) if self.keeps_records else None for entry in entries]


def status_of(entry: EndedEntry) -> Status:
    return Status(
        export_id=entry.export_id,
        phase=Phase.SUCCEEDED,
        connection="gio",
        kind="growingio.tag_users",
        created_at=START,
        updated_at=START,
    )


@dataclass
class Workers:
    """Two workers, the second of which runs while the first one is held: each has a client of its own."""

    clients: list[Any]
    executor: ThreadPoolExecutor
    answers: list[Any] = field(default_factory=list)

    @contextmanager
    def answered(self, answer: Any) -> Iterator[S3Store]:
        """Answers the calls of another worker, which knows nothing of the store."""
        self.answers.append(answer)
        try:
            yield S3Store(self.clients[len(self.answers) - 1], self.executor)
        finally:
            self.answers.pop()


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with s3_credentials(), ThreadPoolExecutor(4) as executor:
        made = Workers([], executor)
        for number in range(2):
            client: Any = build_client(Endpoint("us-east-1", "http://s3.invalid"), 2)
            client.small_sender = None  # the hook sees requests of botocore only
            client.meta.events.register("before-send.s3", partial(_answer, made, number))
            made.clients.append(client)
        yield made


def _answer(workers: Workers, number: int, **call: Any) -> AWSResponse:
    answer: AWSResponse = workers.answers[number](**call)
    return answer


@cache
def rows_in(body: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(io.BytesIO(body)).to_pylist()
    return rows


@dataclass
class World:
    """One store, and what happens at each call."""

    workers: Workers
    conditional: bool
    s3: StrictS3 = field(init=False)

    def __post_init__(self) -> None:
        self.s3 = StrictS3()
        self.s3.conditional = self.conditional

    def again(self) -> "World":
        """Returns such a world with an empty store."""
        return World(self.workers, self.conditional)

    def run(self, log: Log, at_call: Callable[[int, bool], None] = lambda number, before: None) -> ArchivedHour | None:
        """Archives the hour with another worker. `at_call` is called before and after each call of S3."""
        numbers = count(1)

        def answer(request: AWSPreparedRequest, event_name: str, **_: Any) -> AWSResponse:
            number = next(numbers)
            at_call(number, True)
            response = self.s3.execute(event_name.rpartition(".")[2], request)
            self.look(log)
            at_call(number, False)
            return response

        with self.workers.answered(answer) as store:
            return asyncio.run(HourArchiver(store, FOLDER, log, log).archive(START))

    def points(self) -> list[tuple[int, bool]]:
        """Returns every point of a run that nothing disturbs: before and after each call of S3."""
        found: list[tuple[int, bool]] = []
        self.again().run(Log(), lambda *point: found.append(point))
        return found

    def look(self, log: Log) -> None:
        """Looks at the archive as a reader does at any moment: it has all rows or none, and a marker only with all."""
        assert self.rows() in ([], IDENTITIES)
        if any(key.endswith("_SUCCESS") for key in self.s3.objects) and log.entries:
            assert self.rows()

    def rows(self) -> list[tuple[str, int]]:
        """Returns what identifies each row."""
        return [(row["export_id"], row["generation"]) for row in self.full_rows()]

    def full_rows(self) -> list[dict[str, Any]]:
        """Returns the rows of all files that a reader of folders finds."""
        files = [body for key, body in self.bodies().items() if not key.rpartition("/")[2].startswith("_")]
        return [row for body in files for row in rows_in(body)]

    def bodies(self) -> dict[str, bytes]:
        return {key: stored.body for key, stored in self.s3.objects.items()}


@pytest.fixture(params=[True, False], ids=["conditional", "unconditional"])
def world(request: pytest.FixtureRequest, workers: Workers) -> World:
    return World(workers, request.param)


@pytest.fixture(params=[8 * 2**20, 5000], ids=["one put", "parts"], autouse=True)
def part_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PART_BYTES", request.param)
    monkeypatch.setattr(hours, "PAGE_ENTRIES", 3)


def dies_at(*last: Any) -> Callable[[int, bool], None]:
    """A worker that has died makes no more calls, although its code tries to clean up."""

    def at_call(number: int, is_before: bool) -> None:
        if number > last[0] or (number, is_before) == last:
            raise Killed

    return at_call


def test_every_export_is_in_one_row_wherever_a_worker_dies(world: World) -> None:
    points = world.points()
    assert len(points) >= 6
    for point in points:
        each = world.again()
        with suppress(Killed):
            each.run(Log(), dies_at(*point))
        with suppress(Killed):
            each.run(Log(), dies_at(point[0] + 1, False))
        each.run(Log())
        assert each.rows() == IDENTITIES
        assert sum(key.endswith("_SUCCESS") for key in each.s3.objects) == 1


def test_worker_that_is_late_adds_no_row_and_replaces_no_file(world: World) -> None:
    """A second worker archives the hour while the first one is held at a point.

    Meanwhile the records have expired, so that the files of the two differ.
    """
    for point in world.points():
        each, found = world.again(), list[dict[str, bytes]]()
        each.run(Log(), partial(_let_other_archive, each, found, point))
        assert each.rows() == IDENTITIES
        if world.conditional:
            assert each.bodies() == found[0]


def _let_other_archive(
    world: World, found: list[dict[str, bytes]], point: tuple[int, bool], number: int, is_before: bool
) -> None:
    if (number, is_before) == point:
        world.run(Log(keeps_records=False))
        found.append(world.bodies())


def test_hour_that_was_archived_is_not_written_again(world: World) -> None:
    world.run(Log())
    before = world.bodies()
    assert world.run(Log(keeps_records=False)) == ArchivedHour()
    assert world.bodies() == before
    assert {row["connection"] for row in world.full_rows()} == {"gio"}


def test_hour_that_cannot_be_closed_is_not_archived(world: World) -> None:
    assert world.run(Log(may_close=False)) is None
    assert world.bodies() == {}


def test_hour_without_ended_exports_has_a_marker_and_no_file(world: World) -> None:
    assert world.run(Log(entries=())) == ArchivedHour()
    assert [key.rpartition("/")[2] for key in world.s3.objects] == ["_SUCCESS"]


def test_exports_whose_record_has_expired_have_a_row_without_details(world: World) -> None:
    assert world.run(Log(keeps_records=False)) == ArchivedHour(exports=7, missing=7)
    assert {row["connection"] for row in world.full_rows()} == {None}
    ended_at = [datetime.fromtimestamp(entry.ended_ms / 1000, UTC) for entry in ENTRIES]
    assert [row["finished_at"] for row in world.full_rows()] == ended_at
