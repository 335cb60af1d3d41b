"""What a worker says of itself in Redis, for whoever looks: `doctor`, and the count of steps that run."""

from pydantic import ConfigDict

from export_worker.contract.model import Model, Timestamp


class WorkerRecord(Model):
    """One worker at one moment. It expires soon: a worker that lives writes it every few seconds.

    Args:
        owner: Host, process id and a random part; what leases and timelines call it.
        version: Of export-worker.
        running: Steps that it runs, by role; a role that it does not have is missing.
    """

    model_config = ConfigDict(extra="ignore", strict=False)

    owner: str
    version: str
    started_at: Timestamp
    seen_at: Timestamp
    running: dict[str, int]
