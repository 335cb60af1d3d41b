"""The arq functions. They take ids, call one method and return nothing: the record is the truth."""

from typing import Any

from export_worker.machine import Machine


async def export_step(ctx: dict[Any, Any], export_id: str, step: int) -> None:
    """Take one step of one export."""
    machine: Machine = ctx["machine"]
    await machine.step(export_id, step)
