"""The producer side of export-worker: ask for an export, look at it, wait for it.

    async with ExportQueue("redis://127.0.0.1:6379/0") as queue:
        accepted = await queue.enqueue(request)
        status = await queue.wait(accepted.export_id)

Imports neither boto3 nor aiohttp; and Redis's client, which takes longer to import than all the rest, only with the
first name that is used. Types stand in `__init__.pyi`.
"""

from importlib import import_module

_HOME = {
    "Accepted": "export_worker.contract.status",
    "EnqueueError": "export_producers.client",
    "ExportQueue": "export_producers.client",
    "ExportRequest": "export_worker.contract.request",
    "Page": "export_producers.records",
    "Phase": "export_worker.contract.status",
    "Queue": "export_producers.queue",
    "Status": "export_worker.contract.status",
    "SyncExportQueue": "export_producers.sync",
    "TraceContext": "export_worker.contract.trace",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    """A public name, imported when it is first asked for (PEP 562)."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOME)
