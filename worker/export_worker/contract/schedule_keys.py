"""The keys of schedules in Redis. `redis_keys.Keys` has them among all others."""

from dataclasses import dataclass

from export_worker.contract.namespace import Namespace


@dataclass(frozen=True, slots=True)
class ScheduleKeys(Namespace):
    """The keys of the schedules of one namespace."""

    @property
    def schedules(self) -> str:
        """Sorted set of schedules by the time (ms) at which a worker last announced them."""
        return f"{self.namespace}:schedules"

    def schedule(self, name: str) -> str:
        """Hash: `definition` (JSON) and the state of one schedule. See `contract.schedule` and `fire.lua`.

        - `salt`: see `export_id_of`;
        - `after_ms`: times until this one are decided;
        - `next_ms`: when it is due next;
        - `last`: JSON of what became of the last time; `export_id`: the last export that was enqueued;
        - `paused`: JSON of the pause, while it is paused;
        - `fired`, `skipped`, `missed`, `refused`: how many times had this outcome.
        """
        return f"{self.namespace}:schedule:{name}"
