"""Picks the fault that a call meets. Counts for each target on its own, so concurrency changes nothing."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from export_worker.simulator.scenario import FLAKY, CallType, Fault

Standing = Literal["running", "finished", "failed"]
"""Where a job stands, whatever its platform calls it."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a call is about.

    Args:
        key: Faults count by it.
        text: A fault's `match` is looked for in it.
    """

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class _Script:
    """A fault with the number that its counts are kept under."""

    number: int
    fault: Fault


_FLAKY = tuple(_Script(-number, fault) for number, fault in enumerate(FLAKY, start=1))


class FaultBook:
    """The scripted faults in order of their coming, and what is used up of each."""

    def __init__(self) -> None:
        self._scripts: list[_Script] = []
        self._seen: Counter[tuple[int, str]] = Counter()
        self._hits: Counter[int] = Counter()

    def add(self, fault: Fault) -> None:
        """Let this go wrong from now on."""
        self._scripts.append(_Script(len(self._scripts), fault))

    def clear(self) -> None:
        """Forget all faults and counts."""
        self._scripts.clear()
        self._seen.clear()
        self._hits.clear()

    def listing(self) -> list[dict[str, Any]]:
        """Every scripted fault and how often it has struck."""
        return [{**script.fault.model_dump(mode="json"), "hits": self._hits[script.number]} for script in self._scripts]

    def take(self, on: CallType, target: Target, *, flaky: bool, standing: Standing | None = None) -> Fault | None:
        """The fault of this call: the first that fits and is not used up. One a call.

        Args:
            on: What the call is about.
            target: What faults count by.
            flaky: The preset comes after the scripted faults.
            standing: Where the job stands that is looked at.
        """
        for script in (*self._scripts, *(_FLAKY if flaky else ())):
            if _fits(script.fault, on, target, standing) and self._due(script, target):
                self._hits[script.number] += 1
                return script.fault
        return None

    def _due(self, script: _Script, target: Target) -> bool:
        fault = script.fault
        key = (script.number, target.key if fault.per == "target" else "")
        seen = self._seen[key]
        self._seen[key] += 1
        return seen >= fault.skip and (fault.times is None or seen < fault.skip + fault.times)


def _fits(fault: Fault, on: CallType, target: Target, standing: Standing | None) -> bool:
    if fault.on != on or (fault.match is not None and fault.match not in target.text):
        return False
    if on != "poll":
        return True
    match fault.fault:
        case "empty_uris":
            return standing == "finished"
        case "error_stage" | "stale_progress":
            return standing == "running"
        case "unknown_stage":
            return fault.times is not None or standing == "running"
        case _:
            return True
