"""Reads packed records as the hash and the timeline of an open export, for tests that read Redis themselves."""

from export_worker.contract.past import is_packed, unpack
from export_worker.contract.past_documents import status_of_past
from export_worker.redis.records import fields_of_past

NAMES = ("phase", "step", "state", "request", "requested_by", "trace", "saved", "number", "connection", "kind")
BESIDE = {"request", "requested_by", "trace_id"}
"""What the stored status of an open export does not have."""


def record_of(export_id: str, hash_: dict[bytes, bytes], packed: bytes | None) -> dict[str, str]:
    """Returns the fields of a record: of its hash, or of its packed record.

    An export never has both. If a defect wrote the hash again, its fields show that.
    """
    of_hash = {name.decode(): value.decode() for name, value in hash_.items()}
    if packed is None:
        return of_hash
    fields = {name: value.decode() for name, value in fields_of_past(export_id, packed, NAMES).items()}
    status = status_of_past(unpack(export_id, packed)).model_dump_json(exclude=BESIDE)
    return fields | {"status": status} | of_hash


def timeline_of(export_id: str, entries: list[bytes], packed: bytes | None) -> list[bytes]:
    """Returns the entries of a timeline, without the acceptance."""
    return entries if packed is None else list(unpack(export_id, packed).timeline)


def readable(key: bytes, value: object) -> object:
    """Returns a value of Redis with the content of a packed record, in which a text can be searched."""
    if not isinstance(value, bytes) or not is_packed(value):
        return value
    past = unpack(key.decode().rpartition(":")[2].partition(".")[0], value)
    return b"\n".join((past.header.text, past.state, past.trace, past.status, *past.timeline))
