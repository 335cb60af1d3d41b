"""How soon another worker resumes the steps of a killed worker, as the journals of all workers show."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from chaos.fleet import Loss
from chaos.lag import Lag
from chaos.monkey import Span
from chaos.process import Step, read_journal

TAKE_OVER_MAX_S = 5.0
"""At a lease of 3 s: the lease ends, and the next claim of an idle worker is at most a second later."""


@dataclass(frozen=True)
class TakeOver:
    """A step that was resumed after a kill.

    Args:
        seconds: From the kill to the next start of the step.
        lag_s: By how many seconds this machine was too slow for its timers meanwhile.
        calm: Nothing but kills happened meanwhile, and no other worker had died in this step.
    """

    step: Step
    seconds: float
    lag_s: float
    calm: bool


def take_overs(
    losses: Iterable[Loss],
    outputs: Iterable[Path],
    calms: list[Span],
    poisoned: Container[tuple[str, int]],
    lag: Lag,
) -> list[TakeOver]:
    """Returns the lost steps that were started again. A step that was not started again had been saved.

    Args:
        losses: The steps that ran in a process when it was killed.
        outputs: The outputs of all workers, whose journals are beside them.
        calms: The spans in which nothing but kills happened.
        lag: How slow this machine was.
        poisoned: The export and the number of each step that had to wait, because several workers had died in it.
    """
    starts: defaultdict[Step, list[float]] = defaultdict(list)
    for output in outputs:
        for entry in read_journal(output):
            if entry.started:
                starts[entry.step].append(entry.at_s)
    deaths: Counter[Step] = Counter()
    found = []
    for loss in sorted(losses, key=lambda loss: loss.killed_at_s):
        deaths[loss.step] += 1
        times = sorted(starts[loss.step])
        number = bisect_right(times, loss.killed_at_s)
        # A step that was started twice before the kill was also lost in another way, for example by a freeze.
        if number < len(times):
            waits = (loss.step.export_id, loss.step.number) in poisoned
            first_loss = deaths[loss.step] == 1 and number == 1 and not waits
            calm = any(span.start_s < loss.killed_at_s < span.end_s - TAKE_OVER_MAX_S for span in calms)
            lag_s = lag.between(loss.killed_at_s, times[number])
            found.append(TakeOver(loss.step, times[number] - loss.killed_at_s, lag_s, calm and first_loss))
    return found


def late(found: Iterable[TakeOver]) -> list[str]:
    """Returns a line for each take-over that took too long although nothing else happened."""
    return [
        f"{item.step.name} of {item.step.export_id} ({item.step.connection}, step {item.step.number}) was resumed "
        f"{item.seconds:.1f} s after the kill (this machine was {item.lag_s:.1f} s late)"
        for item in found
        if item.calm and item.seconds - item.lag_s > TAKE_OVER_MAX_S
    ]
