"""Names in Redis, and the wire form of a queue entry.

One place for both sides: whoever enqueues and whoever works must agree to the letter. Every key of ours begins with
the namespace. arq's own keys (`arq:job:…`) begin with arq's prefix, which it does not let us
choose; the namespace stands in the job id behind it.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from export_worker.contract.status import Phase

Role = Literal["control", "transfer"]


@dataclass(frozen=True, slots=True)
class Keys:
    """Every key of one namespace."""

    namespace: str

    def export(self, export_id: str) -> str:
        """Hash: the export's record.

        Written by producers: `request`, `status`, `connection`, `kind`, `cancel` and `retry` (what somebody asked for),
        and `trace` (the W3C trace context of the request as JSON, if it had one).
        Written by workers: `state`, `status`, `phase`, `version` (for compare-and-set; whoever claims a step sets it to
        a random number, so it fences off whoever had it before), `saved` (the version whose step was saved last),
        `step` (the only one that may run next), `claims` (how often that step was claimed), `released` (its last holder
        gave it back), `refused` (workers that could do nothing for it, or `all` when nobody took it in time), `going`
        (ms since when its deadline counts) and `progress` (how far a transfer is).
        """
        return f"{self.namespace}:export:{export_id}"

    def timeline(self, export_id: str) -> str:
        """List of JSON: every transition of the export, oldest first."""
        return f"{self.namespace}:timeline:{export_id}"

    @property
    def open(self) -> str:
        """Sorted set of open exports by the time (ms) at which somebody must look at them."""
        return f"{self.namespace}:open"

    @property
    def created(self) -> str:
        """Sorted set of all exports by creation (ms)."""
        return f"{self.namespace}:created"

    @property
    def ended(self) -> str:
        """Sorted set of exports in a terminal phase by its time (ms)."""
        return f"{self.namespace}:ended"

    def phase(self, phase: Phase) -> str:
        """Sorted set of the exports in one phase by creation (ms)."""
        return f"{self.namespace}:phase:{phase}"

    def dedupe(self, idempotency_key: str) -> str:
        """Hash: export id and fingerprint. The key is digested: it is the caller's, of any length and alphabet."""
        return f"{self.namespace}:dedupe:{sha256(idempotency_key.encode()).hexdigest()}"

    @property
    def connections(self) -> str:
        """Hash of connection → platform, announced by workers when they start."""
        return f"{self.namespace}:connections"

    @property
    def sinks(self) -> str:
        """Hash of sink → type, announced by workers when they start."""
        return f"{self.namespace}:sinks"

    def event(self, event_id: str) -> str:
        """String: one event as it is delivered."""
        return f"{self.namespace}:event:{event_id}"

    @property
    def events(self) -> str:
        """Sorted set of the ids of events that are kept, by the time (ms) at which they came about."""
        return f"{self.namespace}:events-at"

    def outbox(self, sink: str) -> str:
        """Sorted set of event ids by the time (ms) of their next delivery to one sink."""
        return f"{self.namespace}:outbox:{sink}"

    def refusals(self, sink: str) -> str:
        """Hash of event id → `failures:first`: how often one sink did not take it, and since when (ms)."""
        return f"{self.namespace}:refusals:{sink}"

    def undelivered(self, sink: str) -> str:
        """Hash of event id → JSON: what was given up for one sink, when and why."""
        return f"{self.namespace}:undelivered:{sink}"

    def dead(self, trigger: str) -> str:
        """Stream: messages that one trigger could not use, in the fields `id`, `reason` and `message`."""
        return f"{self.namespace}:dead:{trigger}"

    @property
    def sweep(self) -> str:
        """String with a TTL: the worker that sweeps."""
        return f"{self.namespace}:sweep"

    @property
    def upload_sweep(self) -> str:
        """String with a TTL: the worker that has looked for uploads that are left in S3."""
        return f"{self.namespace}:upload-sweep"

    def queue(self, role: Role) -> str:
        """Arq's queue (sorted set of job ids by due time in ms)."""
        return f"{self.namespace}:queue:{role}"

    @property
    def workers(self) -> str:
        """Sorted set of workers by the time (ms) at which they last said that they live."""
        return f"{self.namespace}:workers"

    def worker(self, owner: str) -> str:
        """String with a TTL: what one worker says of itself, as JSON."""
        return f"{self.namespace}:worker:{owner}"

    @property
    def contact(self) -> str:
        """String: when (ms) a worker claimed last. A long silence means that Redis was away."""
        return f"{self.namespace}:contact"

    @property
    def spared(self) -> str:
        """String with a TTL: until when (ms), after an outage, nothing that is held is taken from its holder."""
        return f"{self.namespace}:spared"

    @property
    def prefix(self) -> str:
        """What every key begins with; for scripts, which find some names only as they run."""
        return f"{self.namespace}:"

    def wake(self, role: Role) -> str:
        """Channel: something in the queue is due at once."""
        return f"{self.namespace}:wake:{role}"

    def slots(self, connection: str) -> str:
        """Sorted set of the exports of one connection that are on its platform now."""
        return f"{self.namespace}:slots:{connection}"

    def parked(self, connection: str) -> str:
        """Sorted set of the jobs that wait for a slot of one connection, by the time (ms) since when."""
        return f"{self.namespace}:parked:{connection}"

    def waiting(self, connection: str) -> str:
        """Sorted set of the jobs of one connection that wait for a transfer worker, by the time (ms) since when."""
        return f"{self.namespace}:waiting:{connection}"

    @property
    def ring(self) -> str:
        """Sorted set of the connections that have transfers waiting, in the order in which they are served next."""
        return f"{self.namespace}:ring"

    def aside(self, role: Role) -> str:
        """Sorted set of the jobs that are offered to others than who could do nothing for them, by until when (ms)."""
        return f"{self.namespace}:aside:{role}"

    def rate(self, connection: str) -> str:
        """String: when (ms) one connection's calls so far will have been within its rate."""
        return f"{self.namespace}:rate:{connection}"

    def breaker(self, connection: str, role: Role = "control") -> str:
        """Hash: `failures` in a row, `until` when (ms) it is left alone, `vain:ID` how often that export was the probe.

        For control steps of one connection's platform; for transfers of wherever its files come from, and of S3.
        """
        return f"{self.namespace}:breaker:{connection}{':transfer' if role == 'transfer' else ''}"

    def job_id(self, export_id: str, step: int) -> str:
        """The export's step as an arq job. The step number keeps the chain single: one id, one entry."""
        return f"{self.namespace}:{export_id}:{step}"
