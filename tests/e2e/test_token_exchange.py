"""A token is exchanged while exports run: no export fails, none is submitted twice, and the worker keeps running."""

import asyncio
import json
from pathlib import Path

from export_worker.contract.status import Phase
from export_worker.simulator.tokens import TokenStore
from export_worker.simulator.world import World
from support.worker_site import Site

REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
EXPORTS = 20
WAIT_TIMEOUT_S = 90.0
FIRST, SECOND = "canary-first-token", "canary-second-token"


def exchange(mounted: Path, token: str) -> None:
    """Exchanges the file as Kubernetes does it: the link to its directory is replaced."""
    version = mounted / token
    version.mkdir(parents=True)
    (version / "token").write_text(f"{token}\n", encoding="utf-8")
    link = mounted / "new"
    link.symlink_to(version)
    link.replace(mounted / "data")


async def test_token_file_is_exchanged_while_twenty_exports_run(site: Site, world: World, tmp_path: Path) -> None:
    exchange(tmp_path, FIRST)
    world.tokens = TokenStore((FIRST,))
    world.scenario = world.scenario.model_copy(update={"hold_stage": "RUNNING"})
    site.connection |= {"token": f"file:{tmp_path}/data/token"}
    with site.process("run") as worker:
        async with site.queue() as queue, asyncio.timeout(WAIT_TIMEOUT_S):
            ids = [(await queue.enqueue(REQUEST)).export_id for _ in range(EXPORTS)]
            while len(world.jobs) < EXPORTS:
                await asyncio.sleep(0.02)
            exchange(tmp_path, SECOND)
            world.tokens = TokenStore((SECOND,))
            world.scenario = world.scenario.model_copy(update={"hold_stage": None})
            results = [await queue.wait(export_id) for export_id in ids]
            late = await queue.wait((await queue.enqueue(REQUEST)).export_id)
        assert worker.process.poll() is None
    assert [status.error for status in (*results, late) if status.phase != Phase.SUCCEEDED] == []
    assert len(world.jobs) == EXPORTS + 1
    written = worker.log.read_text(encoding="utf-8") + json.dumps(
        [status.model_dump(mode="json") for status in results]
    )
    assert FIRST not in written
    assert SECOND not in written
