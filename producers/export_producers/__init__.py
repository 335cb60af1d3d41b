"""The producer side of export-worker: request an export, read its status, wait for its end.

    async with ExportQueue("redis://127.0.0.1:6379/0") as queue:
        accepted = await queue.enqueue(request)
        status = await queue.wait(accepted.export_id)

Importing this package imports neither boto3 nor aiohttp. The Redis client, which takes longest to import, is imported
when a public name is first used. `__init__.pyi` has the types of the names.
"""

from importlib import import_module

_HOME = {
    "Accepted": "export_worker.contract.status",
    "DryRun": "export_worker.contract.dry_run",
    "EnqueueError": "export_producers.client",
    "ExportFilter": "export_producers.filters",
    "ExportQueue": "export_producers.client",
    "ExportRequest": "export_worker.contract.request",
    "Page": "export_producers.records",
    "Phase": "export_worker.contract.status",
    "Queue": "export_producers.queue",
    "Status": "export_worker.contract.status",
    "SyncExportQueue": "export_producers.sync",
    "TraceContext": "export_worker.contract.trace",
    "use_recipe": "export_producers.recipes",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    """Returns a public name, and imports its module when the name is first used (PEP 562)."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOME)
