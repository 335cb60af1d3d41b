"""The queue entry: the name, identifier and payload of an arq job."""

import json

STEP_FUNCTION = "export_step.v1"
"""Name of the one arq function. Queue entries outlive a deployment, so the name carries a version."""


ARQ_JOB_PREFIX = "arq:job:"


JOB_TTL_MS = 86_400_000
"""A queue entry's payload lives this long beyond its due time; the sweep brings back what outwaits it."""


def job_payload(export_id: str, step: int, enqueued_ms: int) -> str:
    """An arq job that calls the step function. Ids are all it carries: the record is the truth."""
    return dump_job(
        {"t": None, "f": STEP_FUNCTION, "a": [export_id, step], "k": {}, "et": enqueued_ms},
    ).decode()


def dump_job(value: object) -> bytes:
    """Serialize arq's jobs as JSON; its default, pickle, would let whoever writes to Redis run code in a worker."""
    return json.dumps(value, default=str, separators=(",", ":")).encode()


def load_job(data: bytes) -> dict[str, object]:
    """Deserialize arq's jobs.

    Raises:
        ValueError: It is no JSON object, so it is not ours.
    """
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("a queue entry must be a JSON object")  # noqa: TRY004 - arq counts on any exception here
    return value
