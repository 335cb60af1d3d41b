"""The keys in Redis of batches, and the ids of their exports. See `contract.redis_keys` for all others."""

from dataclasses import dataclass
from hashlib import sha256

from export_worker.contract.redis_keys import Keys

EXPORT_ID_DIGITS = 32
"""The hexadecimal digits of the id of an export."""
BATCH_PREFIX = "batch:"
"""The beginning of the key of a batch, behind the namespace."""
BATCH_EVENT = "batch-"
"""The beginning of the ids of events of batches."""


@dataclass(frozen=True, slots=True)
class BatchKeys:
    """The keys of the batches of one namespace."""

    keys: Keys

    def batch(self, name: str) -> str:
        """Hash with a TTL: one batch.

        - `seed`: a random text. The ids of its exports and of its events are made of it, so a name can be used again;
        - `total`, `fingerprint`: how many requests it has, and a digest of all of them;
        - `created_ms`, `requested_by`, `connections` (a JSON list of names);
        - `accepted`: how many of the requests were accepted, in their order;
        - `o:NUMBER`: one field for each open export, by the number of the export;
        - `open`, `succeeded`, `failed`, `cancelled`: how many exports are so;
        - `stop`: when (ms) its cancellation was requested;
        - `generation`: how often it has ended; `ended_ms`: when it has ended, missing while it is open;
        - `manifest`: the address of its manifest, once its end is announced.
        """
        return f"{self.keys.prefix}{BATCH_PREFIX}{name}"

    @property
    def all(self) -> str:
        """Sorted set of the names of batches by the time (ms) of their creation. Some may have expired."""
        return f"{self.keys.prefix}batches"

    @property
    def open(self) -> str:
        """Sorted set, as `all`, of the batches that have not ended."""
        return f"{self.keys.prefix}batches-open"

    @property
    def ended(self) -> str:
        """Sorted set of the batches whose end is not announced yet, by the time (ms) at which a worker may do it."""
        return f"{self.keys.prefix}batches-ended"


def export_id_in_batch(seed: str, position: int) -> str:
    """Returns the id of the export at a position of a batch: the same one each time the batch is enqueued."""
    return sha256(f"{seed}:{position}".encode()).hexdigest()[:EXPORT_ID_DIGITS]


def batch_event_id(seed: str, generation: int) -> str:
    """Returns the id of the event of one end of a batch."""
    return f"{BATCH_EVENT}{seed}.{generation}"


def is_batch_event(event_id: str) -> bool:
    """Returns whether an id is of an event of a batch. No export has such an id."""
    return event_id.startswith(BATCH_EVENT)
