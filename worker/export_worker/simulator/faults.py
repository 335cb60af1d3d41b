"""Chooses the fault of each call.

By default, calls are counted for each target separately, so that concurrency changes no result.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from export_worker.simulator.scenario import FLAKY, CallType, Fault

JobState = Literal["running", "finished", "failed"]
"""The state of a job, independent of the names that its platform uses."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a call is about.

    Args:
        key: Faults with `per="target"` count the calls of each key separately.
        text: The text in which a fault's `match` is searched.
    """

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class _ScriptedFault:
    """A fault, and the number under which its calls are counted."""

    number: int
    fault: Fault


_FLAKY = tuple(_ScriptedFault(-number, fault) for number, fault in enumerate(FLAKY, start=1))


class FaultStore:
    """The scripted faults in the order in which they were added, and the calls that each has seen."""

    def __init__(self) -> None:
        self._scripted: list[_ScriptedFault] = []
        self._seen: Counter[tuple[int, str]] = Counter()
        self._hits: Counter[int] = Counter()

    def add(self, fault: Fault) -> None:
        """Adds a fault. It applies to the calls that follow."""
        self._scripted.append(_ScriptedFault(len(self._scripted), fault))

    def clear(self) -> None:
        """Removes all faults and counts."""
        self._scripted.clear()
        self._seen.clear()
        self._hits.clear()

    def listing(self) -> list[dict[str, Any]]:
        """Returns every scripted fault with `hits`, the number of calls that it changed."""
        return [{**each.fault.model_dump(mode="json"), "hits": self._hits[each.number]} for each in self._scripted]

    def take(self, on: CallType, target: Target, *, flaky: bool, state: JobState | None = None) -> Fault | None:
        """Counts a call, and returns its fault: the first that fits and is due. A call has at most one fault.

        Args:
            on: The type of the call.
            target: What the call is about.
            flaky: Whether the faults of the `flaky` preset follow the scripted ones.
            state: The state of the polled job.
        """
        for scripted in (*self._scripted, *(_FLAKY if flaky else ())):
            if _fits(scripted.fault, on, target, state) and self._count_call(scripted, target):
                self._hits[scripted.number] += 1
                return scripted.fault
        return None

    def _count_call(self, scripted: _ScriptedFault, target: Target) -> bool:
        """Counts a call, and returns whether the fault changes it: after `skip` calls, for the next `times` calls."""
        fault = scripted.fault
        key = (scripted.number, target.key if fault.per == "target" else "")
        seen = self._seen[key]
        self._seen[key] += 1
        return seen >= fault.skip and (fault.times is None or seen < fault.skip + fault.times)


def _fits(fault: Fault, on: CallType, target: Target, state: JobState | None) -> bool:
    if fault.on != on or (fault.match is not None and fault.match not in target.text):
        return False
    if on != "poll":
        return True
    match fault.fault:
        case "empty_uris":
            return state == "finished"
        case "error_stage" | "stale_progress":
            return state == "running"
        case "unknown_stage":
            return fault.times is not None or state == "running"
        case _:
            return True
