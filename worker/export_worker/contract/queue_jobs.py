"""What arq needs to know of queue entries. An entry is a job id: everything else is in the record of its export.

Version 0.1 also wrote a payload for each entry, which no version has read. It expires by itself.
"""

import json

STEP_FUNCTION = "export_step.v1"
"""The name of the only arq function. Queue entries outlive a deployment, so the name has a version."""

_encode = json.JSONEncoder(default=str, separators=(",", ":")).encode


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
