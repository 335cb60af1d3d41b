"""The record that each worker keeps in Redis. `doctor` and the count of running steps read it."""

from pydantic import ConfigDict

from export_worker.contract.model import Model, Timestamp


class WorkerRecord(Model):
    """One worker at one moment. The record expires soon: a live worker writes it again every few seconds.

    Args:
        owner: The worker's name: host, process id and a random part.
        version: The version of export-worker.
        running: The steps that the worker runs, by role. A role that the worker does not have is missing.
        store_problems: Why the worker cannot use the store of a connection, by connection. It claims no transfer of
            these connections.
    """

    model_config = ConfigDict(extra="ignore", strict=False)

    owner: str
    version: str
    started_at: Timestamp
    seen_at: Timestamp
    running: dict[str, int]
    store_problems: dict[str, str] = {}
