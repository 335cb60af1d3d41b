"""The queue entry of a step: the function, key and payload of an arq job."""

import json

STEP_FUNCTION = "export_step.v1"
"""The name of the only arq function. Queue entries outlive a deployment, so the name has a version."""

ARQ_JOB_PREFIX = "arq:job:"
"""The beginning of the key of a job's payload. arq's job id follows."""

JOB_TTL_MS = 86_400_000
"""A job's payload expires this long after the job is due. The sweep enqueues an export that waits longer again."""

_encode = json.JSONEncoder(default=str, separators=(",", ":")).encode


def job_payload(export_id: str, step: int, enqueued_ms: int) -> str:
    """Returns an arq job that calls the step function. It has only ids: everything else is in the export's record."""
    return _encode({"t": None, "f": STEP_FUNCTION, "a": [export_id, step], "k": {}, "et": enqueued_ms})


def dump_job(value: object) -> bytes:
    """Serializes an arq job as JSON: with pickle, arq's default, a writer to Redis could run code in a worker."""
    return _encode(value).encode()


def load_job(data: bytes) -> dict[str, object]:
    """Deserializes an arq job.

    Raises:
        ValueError: The data is no JSON object, so it is not from export-worker.
    """
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("a queue entry must be a JSON object")  # noqa: TRY004 - arq handles every exception alike
    return value
