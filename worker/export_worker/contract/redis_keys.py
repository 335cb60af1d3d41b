"""The keys in Redis. Producers and workers must agree on them to the letter, so both use this module.

Every key of export-worker begins with the namespace.

A Redis cluster puts a key into a slot by the text between its first braces, the hash tag. So all keys of a namespace
with a hash tag, such as `{exports}`, are in one slot.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from json import dumps
from typing import Literal

from export_worker.contract.event_keys import EventKeys
from export_worker.contract.facets import Facet
from export_worker.contract.schedule_keys import ScheduleKeys

Role = Literal["control", "transfer"]
"""`control` steps call the platform: submit, poll, cancel. `transfer` steps move files into S3."""

CallKind = Literal["submit", "poll", "transfer"]
"""The kinds of calls that are judged separately: what a step does, by the phase of its export."""

HOUR_S = 3600
"""The length of the time for which statistics have one hash."""
NO_END_MS = 253_402_300_799_000
"""The score of a pause without an end: the last second that RFC 3339 can state."""
CHUNK_ROWS = 4000
"""Exports with successive numbers whose rows are in the same keys. See `lua/indexes.lua`."""
ID_ROW_BYTES = 24
"""A row of `ids`. It begins with the export's id."""
ID_BYTES = 16
"""An id in such a row: it has twice as many hexadecimal digits."""

_HASH_TAG = re.compile(r"\{[^{}]+\}")


@dataclass(frozen=True, slots=True)
class Keys(EventKeys, ScheduleKeys):
    """Every key of one namespace."""

    @property
    def home(self) -> str | None:
        """A key in the slot of all keys of this namespace; None if it has no hash tag, and Redis is no cluster."""
        return self.open if _HASH_TAG.search(self.namespace) else None

    def export(self, export_id: str) -> str:
        """Hash: the export's record.

        Producers write `request`, `status`, `connection`, `kind`, `cancel` and `retry` (what a caller has requested),
        `message` (the key of the identity that expires with the record: of a message, or of an idempotency key of a
        caller with a name), `trace` (the W3C trace context of the request as JSON, if it has one), `requested_by`,
        `number` (see `lua/indexes.lua`), and `priority`, unless it is normal.
        Workers write:

        - `state`, `status`, `phase`;
        - `version`: a random number that each claim sets, so that a worker that has lost the step can change nothing;
        - `saved`: the version whose step was saved last;
        - `step`: the number of the only step that may run next;
        - `claims`: how often that step was claimed;
        - `lost`: how many workers stopped responding while they ran that step;
        - `released`: no worker holds the step. The last one has returned it (`1`), or was counted as lost (`died`).
          With `ending`, a worker that stops holds the step until its lease ends, and then does not count as lost;
        - `refused`: the workers that cannot run the step, or `all` when no other worker has claimed it in time;
        - `going`: the time (ms) from which its deadline counts;
        - `progress`: how far a transfer is;
        - `share`: what names `sharing`, if the export shares an operation until it ends;
        - `source`: the export whose operation or files the next step takes over;
        - `passed`: the export to which this one has passed its operation, so its cancellation does not end it;
        - `files`: JSON of a transfer's files, if they are too many for `state`; see `stored`.
        """
        return f"{self.namespace}:export:{export_id}"

    def stored(self, export_id: str) -> str:
        """List of JSON: the stored files of a transfer whose record has the field `files`. `state` has neither then."""
        return f"{self.namespace}:stored:{export_id}"

    def sharing(self, digest: str) -> str:
        """Hash with a TTL: `leader`, the export whose operation equal open exports share. See `lua/sharing.lua`."""
        return f"{self.namespace}:sharing:{digest}"

    def sharers(self, digest: str) -> str:
        """Sorted set with a TTL: the open exports that share an operation, by the time (ms) of acceptance."""
        return f"{self.namespace}:sharers:{digest}"

    def timeline(self, export_id: str) -> str:
        """List of JSON: every transition of the export, the oldest first."""
        return f"{self.namespace}:timeline:{export_id}"

    def past(self, export_id: str) -> str:
        """String with a TTL: the packed record of an ended export, in place of its hash and timeline.

        See `contract.past`. An export that an earlier version has ended keeps its hash.
        """
        return f"{self.namespace}:past:{export_id}"

    def restarted(self, export_id: str) -> str:
        """String with a TTL: JSON of the last retry with a condition, for a repeated call: `call` and `status`."""
        return f"{self.namespace}:restarted:{export_id}"

    @property
    def open(self) -> str:
        """Sorted set of open exports by the time (ms) at which the sweep must examine them."""
        return f"{self.namespace}:open"

    @property
    def numbers(self) -> str:
        """Hash: the numbers that exports have. See `lua/indexes.lua` for all keys over many exports."""
        return f"{self.namespace}:numbers"

    def ids(self, chunk: int) -> str:
        """String of rows of 24 bytes: the ids of exports, in the order of their numbers. See `lua/indexes.lua`."""
        return f"{self.namespace}:ids:{chunk}"

    @property
    def chunks(self) -> str:
        """Sorted set of the parts of the numbers that have rows. See `lua/indexes.lua`."""
        return f"{self.namespace}:chunks"

    @property
    def tally(self) -> str:
        """String of 32-bit counters: how many exports have one value of a facet. See `lua/indexes.lua`."""
        return f"{self.namespace}:tally"

    def codes(self, facet: Facet) -> str:
        """Hash of the values of one facet that exports have → the code of each in the rows of `lua/indexes.lua`."""
        return f"{self.namespace}:codes:{facet}"

    @property
    def ended_hours(self) -> str:
        """Sorted set of the hours (ms) in which exports have ended."""
        return f"{self.namespace}:ended-hours"

    def ended_log(self, hour_ms: int) -> str:
        """String: the exports that ended in one hour, in entries of 14 bytes. See `lua/indexes.lua`."""
        return f"{self.namespace}:ended:{hour_ms}"

    @property
    def ended_closed(self) -> str:
        """String: the last hour (ms) whose log gets no further entries. Missing while the log is not archived."""
        return f"{self.namespace}:ended-closed"

    @property
    def created(self) -> str:
        """Sorted set of the exports without numbers by creation (ms). Version 0.2 writes it; the sweep empties it."""
        return f"{self.namespace}:created"

    @property
    def ended(self) -> str:
        """Sorted set of exports by the time (ms) of their end. Version 0.2 writes it; the sweep empties it."""
        return f"{self.namespace}:ended"

    def hour(self, connection: str, moment: datetime) -> str:
        """Hash, kept for 14 days: what was counted about the exports that ended in one hour. See `lua/statistics.lua`.

        Its fields are `ended:PHASE`, `error:CODE`, `bytes` (in S3, of those that succeeded), and `duration:SECONDS`:
        the exports that took at most so long, and longer than the next smaller bucket (see `contract.durations`).
        """
        return f"{self.namespace}:hour:{connection}:{_hour_ms(moment)}"

    def recent(self, connection: str, moment: datetime) -> str:
        """Hash, kept for two hours: the exports that ended in one hour, in fields `PHASE:START_MS` of five minutes."""
        return f"{self.namespace}:recent:{connection}:{_hour_ms(moment)}"

    @property
    def changes(self) -> str:
        """Stream of the last changes of exports: `id`, `connection`, `kind`, `phase`, and `was`, the phase before."""
        return f"{self.namespace}:changes"

    @property
    def search_metadata(self) -> str:
        """Sorted set of the names of metadata that have indexes, by the time (ms) from which exports are in them."""
        return f"{self.namespace}:search-metadata"

    def dedupe(self, idempotency_key: str) -> str:
        """Hash: export id, fingerprint, and `named_by` (`request`; version 0.1 did not set it).

        The caller's key may have any length and alphabet, so it is hashed.
        """
        return f"{self.namespace}:dedupe:{_digest(idempotency_key)}"

    def message(self, identity: str) -> str:
        """Hash, as `dedupe`, for a trigger's message. No idempotency key of a request leads to it."""
        return f"{self.namespace}:message:{_digest(identity)}"

    def owned(self, owner: str, idempotency_key: str) -> str:
        """Hash, as `dedupe`, for an idempotency key of a caller with a name. The export's record has this key."""
        return f"{self.namespace}:owned:{_digest(dumps([owner, idempotency_key]))}"

    @property
    def activity(self) -> str:
        """Stream with a TTL: who has changed what through the HTTP API, as JSON in the field `act`."""
        return f"{self.namespace}:activity"

    @property
    def connections(self) -> str:
        """Hash of connection → platform. Workers announce theirs when they start."""
        return f"{self.namespace}:connections"

    @property
    def limits(self) -> str:
        """Hash of connection → how many exports may run on its platform. Workers announce theirs when they start."""
        return f"{self.namespace}:limits"

    @property
    def triggers(self) -> str:
        """Hash of trigger → JSON: `type`, and of a Redis stream `stream` and `group`. Triggers announce themselves."""
        return f"{self.namespace}:triggers"

    @property
    def sinks(self) -> str:
        """Hash of sink → type. Workers announce theirs when they start."""
        return f"{self.namespace}:sinks"

    def dead(self, trigger: str) -> str:
        """Stream: the dead letters of one trigger, in the fields `id`, `reason` and `message`."""
        return f"{self.namespace}:dead:{trigger}"

    @property
    def sweep(self) -> str:
        """String with a TTL: until when (ms) no other worker sweeps, a colon, and the worker that sweeps."""
        return f"{self.namespace}:sweep"

    @property
    def upload_sweep(self) -> str:
        """String with a TTL, as `sweep`: the worker that has searched S3 for abandoned uploads."""
        return f"{self.namespace}:upload-sweep"

    @property
    def archive(self) -> str:
        """Hash: how far the archive of ended exports is. See `contract.archive_state`."""
        return f"{self.namespace}:archive"

    @property
    def archiving(self) -> str:
        """String with a TTL, as `sweep`: the worker that archives."""
        return f"{self.namespace}:archiving"

    def queue(self, role: Role) -> str:
        """Arq's queue: a sorted set of job ids by due time (ms)."""
        return f"{self.namespace}:queue:{role}"

    @property
    def workers(self) -> str:
        """Sorted set of workers by the time (ms) at which they last wrote their record."""
        return f"{self.namespace}:workers"

    def worker(self, owner: str) -> str:
        """String with a TTL: one worker's record, as JSON."""
        return f"{self.namespace}:worker:{owner}"

    @property
    def contact(self) -> str:
        """String: when (ms) a worker last claimed. A long silence means that Redis was unreachable."""
        return f"{self.namespace}:contact"

    @property
    def spared(self) -> str:
        """String with a TTL: until when (ms), after an outage, a held step keeps its worker."""
        return f"{self.namespace}:spared"

    @property
    def write_check(self) -> str:
        """String with a TTL: written by health checks, because a read-only Redis answers reads as usual."""
        return f"{self.namespace}:write-check"

    def session(self, digest: str) -> str:
        """String with a TTL: a login at the console, as JSON. It is named by the SHA-256 of the cookie."""
        return f"{self.namespace}:session:{digest}"

    @property
    def clock(self) -> str:
        """Hash: `seen`, the clock (ms) of Redis at the last claim; `offset`, what (ms) all processes add to it."""
        return f"{self.namespace}:clock"

    @property
    def prefix(self) -> str:
        """The beginning of every key, for scripts that find some names only while they run."""
        return f"{self.namespace}:"

    def wake(self, role: Role) -> str:
        """Channel: an entry of the queue is due at once."""
        return f"{self.namespace}:wake:{role}"

    def slots(self, connection: str) -> str:
        """Sorted set of the exports of one connection that are on its platform now, by the time (ms) since when."""
        return f"{self.namespace}:slots:{connection}"

    def parked(self, connection: str) -> str:
        """Sorted set of the jobs that wait for a slot of one connection, by the time (ms) since when."""
        return f"{self.namespace}:{self.parked_row(connection)}"

    def parked_row(self, connection: str) -> str:
        """The row of `turns` in which jobs wait for a slot of one connection."""
        return f"parked:{connection}"

    def waiting(self, connection: str) -> str:
        """Sorted set of the jobs of one connection that wait for a transfer worker, by the time (ms) since when."""
        return f"{self.namespace}:{self.waiting_row(connection)}"

    def waiting_row(self, connection: str) -> str:
        """The row of `turns` in which jobs of one connection wait for a transfer worker."""
        return f"waiting:{connection}"

    def turns(self, row: str) -> str:
        """Sorted set of the jobs of a row in the order of their turns; see `lua/turns.lua`."""
        return f"{self.namespace}:turns:{row}"

    def deadlines(self, role: Role) -> str:
        """Sorted set of the jobs that are parked or wait for a transfer worker, by the deadline (ms) of their exports.

        A job may stay in it after its wait has ended. It is removed at its deadline at the latest.
        """
        return f"{self.namespace}:deadlines:{role}"

    @property
    def ring(self) -> str:
        """Sorted set of the connections that have waiting transfers, in the order of their turns."""
        return f"{self.namespace}:ring"

    def aside(self, role: Role) -> str:
        """Sorted set of the jobs that only other workers may claim, by the time (ms) until when."""
        return f"{self.namespace}:aside:{role}"

    def durations(self, connection: str, kind: str) -> str:
        """List: how long (ms) the last operations of one kind took on one connection, the newest first."""
        return f"{self.namespace}:durations:{connection}:{kind}"

    def rate(self, connection: str) -> str:
        """String: when (ms) the rate of one connection has room again for the requests that were counted."""
        return f"{self.namespace}:rate:{connection}"

    def breaker(self, connection: str, kind: CallKind | None = None) -> str:
        """Hash: a circuit breaker of one connection. It does not exist while calls succeed.

        - `until`: until when (ms) calls are paused; missing while the breaker is closed;
        - `pauses`: how many pauses there were in a row;
        - `probing`: a probe runs, and `until` is when the next one may start if the first one does not end.

        Without a kind, it is the breaker of the platform: it pauses all submits and polls. The breaker of one kind
        pauses only the exports for which such a call has failed, and has also:

        - `failed:ID`: how often that export's calls have failed since the last success of any export;
        - `failures`: the number of these exports.
        """
        return f"{self.namespace}:breaker:{connection}" + (f":{kind}" if kind else "")

    @property
    def paused(self) -> str:
        """Sorted set of paused connections by the end (ms) or `NO_END_MS`; the first claim after it removes a pause."""
        return f"{self.namespace}:paused"

    @property
    def pauses(self) -> str:
        """Hash of connection → JSON: since when, by whom and why it is paused. See `paused`."""
        return f"{self.namespace}:pauses"

    @property
    def closed(self) -> str:
        """Sorted set of connections outside of their submit windows, by the time (ms) of the next; as `paused`."""
        return f"{self.namespace}:closed"

    @property
    def bulks(self) -> str:
        """Sorted set of the bulk runs that have not ended, by the time (ms) at which they were ordered."""
        return f"{self.namespace}:bulks"

    def bulk(self, bulk_id: str) -> str:
        """Hash with a TTL: one bulk run.

        - `order`, `progress`: JSON texts; `stop`: a caller has requested that it stops;
        - `owner`, `until`: the gateway that runs it, and until when (ms) without a further save.
        """
        return f"{self.namespace}:bulk:{bulk_id}"

    def job_id(self, export_id: str, step: int) -> str:
        """The export's step as an arq job. The step number is in the id, so an export has one queue entry at most."""
        return f"{self.namespace}:{export_id}:{step}"


def _hour_ms(moment: datetime) -> int:
    return int(moment.timestamp() // HOUR_S) * HOUR_S * 1000


def _digest(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()
