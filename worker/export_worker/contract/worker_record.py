"""The record that each worker keeps in Redis. `doctor` and the count of running steps read it."""

from pydantic import ConfigDict

from export_worker.contract.model import Model, Timestamp

STEPS_MAX = 100
"""Steps that a record names: more than a worker with the default settings runs, and some 8 KB."""


class RunningStep(Model):
    """A step that a worker runs."""

    model_config = ConfigDict(extra="ignore", strict=False)

    export_id: str
    """The export."""
    connection: str
    """The connection of the export."""
    role: str
    """The role of the step: `control` or `transfer`."""


class WorkerRecord(Model):
    """One worker at one moment. The record expires soon: a live worker writes it again every few seconds.

    Args:
        owner: The worker's name: host, process id and a random part.
        version: The version of export-worker.
        running: The steps that the worker runs, by role. A role that the worker does not have is missing.
        store_problems: Why the worker cannot use the store of a connection, by connection. It claims no transfer of
            these connections.
        exports: The steps that the worker runs, at most 100. Version 0.2 does not write them.
        leases_lost: Steps that other workers took over from this one since it started. None in version 0.2.
    """

    model_config = ConfigDict(extra="ignore", strict=False)

    owner: str
    version: str
    started_at: Timestamp
    seen_at: Timestamp
    running: dict[str, int]
    store_problems: dict[str, str] = {}
    exports: list[RunningStep] = []
    leases_lost: int | None = None
