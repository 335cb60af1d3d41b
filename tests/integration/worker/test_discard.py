"""After an export has succeeded, its result can be deleted on the platform. This never changes how it ended."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from export_worker.contract.request import ExportKind
from export_worker.contract.status import Phase
from export_worker.errors import PlatformUnavailableError
from export_worker.worker import discarding
from support.scripted_worker import Parts, ScriptedDriver


@dataclass
class DiscardingDriver(ScriptedDriver):
    """A driver whose platform deletes results as a test says."""

    delete: Callable[[], Awaitable[None]] = field(default=lambda: asyncio.sleep(0))
    deleted: list[tuple[str, Phase]] = field(default_factory=list)
    phase: Callable[[], Awaitable[Phase]] = field(default=lambda: asyncio.sleep(0, Phase.QUEUED))

    async def discard(self, export: ExportKind, operation_id: str) -> None:
        """Notes the operation, and the phase of its export at this time."""
        self.deleted.append((operation_id, await self.phase()))
        await self.delete()


async def refuse() -> None:
    raise PlatformUnavailableError("no answer")


async def crash() -> None:
    raise KeyError("x")


async def hang() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "delete", [lambda: asyncio.sleep(0), refuse, crash, hang], ids=["ok", "refuse", "crash", "hang"]
)
async def test_result_is_discarded_once_after_the_export_has_succeeded(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, delete: Callable[[], Awaitable[None]]
) -> None:
    monkeypatch.setattr(discarding, "DISCARD_TIMEOUT_S", 0.1)
    driver = DiscardingDriver(delete=delete)
    discarding_parts = Parts(parts.site, driver, parts.clock, parts.writer)
    export_id = await parts.site.transferring()

    async def phase() -> Phase:
        return (await parts.site.queue.status(export_id)).phase

    driver.phase = phase
    with capture_logs() as logs:
        await discarding_parts.runner.run(await parts.site.one("transfer"))
    assert await phase() is Phase.SUCCEEDED
    assert [seen for _, seen in driver.deleted] == [Phase.SUCCEEDED]
    events = [line["event"] for line in logs if line["event"].startswith("result.")]
    assert events == ["result.discarded" if delete not in {refuse, crash, hang} else "result.not_discarded"]


async def test_result_of_a_failed_export_is_not_discarded(parts: Parts) -> None:
    driver = DiscardingDriver(missing={"b.csv"})
    await parts.site.transferring()
    await Parts(parts.site, driver, parts.clock, parts.writer).runner.run(await parts.site.one("transfer"))
    assert driver.deleted == []
