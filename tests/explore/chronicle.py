"""Notes what the scripts did to the exports during a run, and copies Redis for a fail-over."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from explore.memory_s3 import MemoryS3
from explore.virtual_loop import Process
from export_worker.contract.past import read_header
from export_worker.contract.redis_keys import Keys

WRITES_FORGOTTEN = 2
"""How many scripts a fail-over forgets."""
LEASE_S = 3.0
"""How long a lease lasts in a run: the shortest that the configuration allows."""
ROUNDING_S = 0.01
"""Redis has times in whole milliseconds."""
ENDED = {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True, slots=True)
class Claim:
    """One step that a worker claimed.

    Args:
        phase: The phase of the export when it was claimed.
        retry: The step from which a retry was requested, or empty.
    """

    at_s: float
    worker: str
    export_id: str
    step: int
    version: str
    phase: str
    retry: str
    held_by: str
    """The worker that held the step according to its last claim or renewal, or empty."""


@dataclass(frozen=True, slots=True)
class Change:
    """The record of an export after a script has changed it."""

    at_s: float
    script: str
    worker: str
    export_id: str
    phase: str
    step: int
    retry: str
    sealed: bool
    """Whether `_SUCCESS` of the export was in S3."""


@dataclass(frozen=True, slots=True)
class Request:
    """A cancellation or a retry that Redis accepted, with the phase of the export before."""

    at_s: float
    script: str
    export_id: str
    phase: str


@dataclass(frozen=True, slots=True)
class _Lease:
    worker: str
    step: int
    version: str
    until_s: float


class Chronicle:
    """What happened to the exports.

    Args:
        redis: A client that is not intercepted. It is untyped, because redis-py's types are those of both its clients.
        clock: The virtual time, in seconds.
        copies: Whether Redis is copied after each script, for a fail-over.
    """

    def __init__(self, redis: Any, keys: Keys, s3: MemoryS3, clock: Callable[[], float], *, copies: bool) -> None:
        self.claims: list[Claim] = []
        self.changes: list[Change] = []
        self.requests: list[Request] = []
        self.forgot = False
        self.leaders: list[str] = []
        """The exports that led when they were accepted, if exports share their operations."""
        self._redis = redis
        self._keys = keys
        self._clock = clock
        self._s3 = s3
        self._leases: dict[str, _Lease] = {}
        self._copies: list[dict[bytes, bytes]] | None = [] if copies else None

    def note_script(self, process: Process, name: str, arguments: dict[str, Any], answer: Any) -> None:
        """Notes one run of a script; see `calls.OnScript`."""
        match name:
            case "claim":
                for item in answer.get("steps", ()):
                    self._note_claim(process.name, item)
            case "renew":
                for item, word in zip(arguments["steps"], answer["answers"], strict=True):
                    if word in {"renewed", "cancel_requested"}:
                        self._hold(process.name, item["export_id"], int(item["job_id"].rpartition(":")[2]), item)
            case "enqueue":
                self._note_change(process.name, name, arguments, answer)
                self._note_leader(arguments)
            case "commit" | "release" | "hand_back" | "cancel" | "retry":
                self._note_change(process.name, name, arguments, answer)
            case _:
                pass
        is_idle = name == "take_deliveries" or (name == "claim" and "steps" not in answer)
        is_idle = is_idle or (name == "fire" and "export_id" not in answer)
        if self._copies is not None and not is_idle:
            # An accepted export is never forgotten.
            self._copies = [*([] if name == "enqueue" else self._copies), self._copy()][-1 - WRITES_FORGOTTEN :]

    def _note_claim(self, worker: str, item: dict[str, Any]) -> None:
        export_id, now_s = item["export_id"], self._clock()
        phase, step, retry = self._read(export_id)
        lease = self._leases.get(export_id)
        held_by = ""
        if lease is not None and lease.step == step and lease.until_s > now_s + ROUNDING_S:
            held_by = lease.worker
        version = str(item["version"])
        self.claims.append(Claim(now_s, worker, export_id, step, version, phase, retry, held_by))
        self._hold(worker, export_id, step, item)

    def _hold(self, worker: str, export_id: str, step: int, item: dict[str, Any]) -> None:
        self._leases[export_id] = _Lease(worker, step, str(item["version"]), self._clock() + LEASE_S)

    def _note_change(self, worker: str, script: str, arguments: dict[str, Any], answer: Any) -> None:
        export_id, now_s = arguments["export_id"], self._clock()
        phase, step, retry = self._read(export_id)
        verdict = answer["verdict"] if isinstance(answer, dict) else answer
        if verdict in {"lease_lost", "timeline_grew"}:
            return
        if script in {"cancel", "retry"} and verdict in {"requested", "restarted"}:
            before = next((change.phase for change in reversed(self.changes) if change.export_id == export_id), "")
            self.requests.append(Request(now_s, script, export_id, before))
        lease = self._leases.get(export_id)
        is_over = verdict in {"saved", "kept", "released", "handed_back"} and arguments.get("mode") != "checkpoint"
        if is_over and lease is not None and lease.version == arguments["version"]:
            del self._leases[export_id]
        sealed = f"{export_id}/_SUCCESS" in self._s3.objects
        self.changes.append(Change(now_s, script, worker, export_id, phase, step, retry, sealed))
        if verdict == "kept" and arguments["keep"]["version"] != self._version(export_id):
            # The commit has claimed the next step. A repeated commit has the same version.
            self._note_claim(worker, {"export_id": export_id, "version": arguments["keep"]["version"]})

    def _note_leader(self, arguments: dict[str, Any]) -> None:
        export_id, digest = arguments["export_id"], arguments.get("share")
        leader = self._redis.hget(self._keys.sharing(digest), "leader") if digest else None
        if leader == export_id.encode() and export_id not in self.leaders:
            self.leaders.append(export_id)

    def _version(self, export_id: str) -> str:
        lease = self._leases.get(export_id)
        return "" if lease is None else lease.version

    def _read(self, export_id: str) -> tuple[str, int, str]:
        phase, step, retry = self._redis.hmget(self._keys.export(export_id), "phase", "step", "retry")
        packed = self._redis.get(self._keys.past(export_id))
        # A worker that wrongly changes an export that has ended creates its hash again.
        if phase is None and packed is not None:
            header = read_header(packed)
            return header.phase, header.step, ""
        return (phase or b"").decode(), int(step or 0), (retry or b"").decode()

    def _copy(self) -> dict[bytes, bytes]:
        names = self._redis.keys("*")
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.dump(name)
        return dict(zip(names, pipe.execute(), strict=True))

    def forget(self) -> None:
        """Lets Redis be as it was before its last writes."""
        if self._copies is None or len(self._copies) <= WRITES_FORGOTTEN:
            return
        self.forgot = True
        self._leases.clear()
        self._redis.flushdb()
        for name, value in self._copies[0].items():
            self._redis.restore(name, 0, value)
