"""The producer side of export-worker: ask for an export, look at it, wait for it.

    async with ExportQueue("redis://127.0.0.1:6379/0") as queue:
        accepted = await queue.enqueue(request)
        status = await queue.wait(accepted.export_id)

Imports neither boto3 nor aiohttp.
"""

from export_producers.client import ExportQueue
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Accepted, Phase, Status

__all__ = ["Accepted", "ExportQueue", "ExportRequest", "Phase", "Status"]
