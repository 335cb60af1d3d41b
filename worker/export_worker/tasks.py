"""The arq function. It takes what was claimed, calls one method and returns nothing: the record is the truth."""

from typing import Any

from export_worker.machine import Machine
from export_worker.store import Turn


async def export_step(ctx: dict[Any, Any], turn: Turn) -> None:
    """Take one step of one export."""
    machine: Machine = ctx["machine"]
    await machine.take(turn)
