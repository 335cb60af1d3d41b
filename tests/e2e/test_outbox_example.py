"""The outbox of a service, as `producers/OUTBOX.md` shows it: its relay is killed at each point."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session

from export_producers import ExportQueue, SyncExportQueue
from support import outbox_relay
from support.outbox_relay import POINTS, example
from support.postgres_server import postgres_server
from support.redis_site import request_of

ROWS = 6


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'service.db'}"
        return
    with postgres_server() as address:
        yield address


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = create_engine(database)
    yield engine
    engine.dispose()


async def relays(database: str, redis_url: str, namespace: str) -> dict[str, int]:
    """Runs one relay for each point. Returns their exit statuses."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, outbox_relay.__file__, database, redis_url, namespace),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return {point: int(status) for point, status in map(str.split, printed.decode().splitlines())}


async def test_committed_requests_are_exported_once_whenever_the_relay_is_killed(
    database: str, engine: Engine, redis_url: str, namespace: str
) -> None:
    names = example()
    names["Base"].metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        for number in range(ROWS):
            names["request_export"](session, request_of(metadata={"order": str(number)}))
    with Session(engine) as session:
        names["request_export"](session, request_of(metadata={"order": "rolled back"}))
        session.flush()
        session.rollback()
    expected = dict.fromkeys(POINTS, -signal.SIGKILL) | {"never": 0}
    assert await relays(database, redis_url, namespace) == expected
    with Session(engine) as session:
        rows = session.scalars(select(names["OutboxRow"])).all()
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        exports = {each.export_id: each.metadata["order"] for each in await queue.list_exports(limit=1000)}
    assert sorted(exports.values()) == [str(number) for number in range(ROWS)]
    assert {row.export_id for row in rows} == set(exports)


async def test_request_that_is_refused_later_waits_for_a_person_and_stops_no_other(
    redis_url: str, namespace: str, tmp_path: Path
) -> None:
    names, engine = example(), create_engine(f"sqlite:///{tmp_path / 'service.db'}")
    names["Base"].metadata.create_all(engine)
    with SyncExportQueue(redis_url, namespace=namespace, connections={"gio": "growingio"}) as queue:
        with Session(engine) as session, session.begin():
            names["request_export"](session, request_of("removed"))
            names["request_export"](session, request_of("gio"))
        assert [await asyncio.to_thread(names["relay"], engine, queue) for _ in range(2)] == [2, 0]
    with Session(engine) as session:
        refused, accepted = session.scalars(select(names["OutboxRow"]).order_by(names["OutboxRow"].id)).all()
    engine.dispose()
    assert (refused.export_id, "removed" in refused.refused) == (None, True)
    assert accepted.export_id is not None


async def test_longest_idempotency_key_fits_the_table(database: str, engine: Engine) -> None:
    names = example()
    names["Base"].metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        key = names["request_export"](session, request_of(idempotency_key="k" * 255))
    with Session(engine) as session:
        assert session.scalars(select(names["OutboxRow"].key)).all() == [key]
