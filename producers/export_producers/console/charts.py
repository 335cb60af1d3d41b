"""Charts as shapes of SVG, without a style of their own: the style sheet colours them by their classes. Pure."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from export_producers.reads.failures_document import FailureGroup, Failures
from export_producers.reads.stats_document import StatsHour

HEIGHT = 100.0
BAR_WIDTH = 10.0
GAP = 2.0
OUTCOMES = ("succeeded", "failed", "cancelled")
"""The parts of a bar, from the bottom up."""


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of a bar.

    Args:
        name: Its class in the style sheet.
    """

    name: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """What one hour has, as rectangles and as numbers for the table behind the chart."""

    start: datetime
    counts: dict[str, int]
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with one bar for each hour."""

    width: float
    height: float
    highest: int
    bars: Sequence[Bar]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return self.highest == 0


def ended_by_hour(hours: Sequence[StatsHour]) -> Chart:
    """Returns the chart of the exports that ended in each hour, stacked by their outcome."""
    counts = [{name: int(getattr(hour.ended, name)) for name in OUTCOMES} for hour in hours]
    highest = max((sum(each.values()) for each in counts), default=0)
    bars = [
        Bar(hour.start, each, list(_stacked(each, position * (BAR_WIDTH + GAP), highest)))
        for position, (hour, each) in enumerate(zip(hours, counts, strict=True))
    ]
    return Chart(len(bars) * (BAR_WIDTH + GAP), HEIGHT, highest, bars)


def bytes_by_hour(hours: Sequence[StatsHour]) -> Chart:
    """Returns the chart of the bytes in S3 of the exports that succeeded in each hour."""
    highest = max((hour.bytes for hour in hours), default=0)
    bars = [
        Bar(hour.start, {"bytes": hour.bytes}, list(_stacked({"bytes": hour.bytes}, x * (BAR_WIDTH + GAP), highest)))
        for x, hour in enumerate(hours)
    ]
    return Chart(len(bars) * (BAR_WIDTH + GAP), HEIGHT, highest, bars)


def failed_over_time(group: FailureGroup, found: Failures) -> Chart:
    """Returns the chart of when the exports of a group failed."""
    length = (found.counted_until - found.counted_since) / len(group.counts)
    highest = max(group.counts)
    bars = [
        Bar(
            found.counted_since + number * length,
            {"failed": count},
            list(_stacked({"failed": count}, number * (BAR_WIDTH + GAP), highest)),
        )
        for number, count in enumerate(group.counts)
    ]
    return Chart(len(bars) * (BAR_WIDTH + GAP), HEIGHT, highest, bars)


def _stacked(counts: dict[str, int], x: float, highest: int) -> list[Part]:
    parts, top = [], HEIGHT
    for name, count in counts.items():
        height = HEIGHT * count / highest if highest else 0.0
        top -= height
        if count:
            parts.append(Part(name, x, round(top, 2), BAR_WIDTH, round(height, 2)))
    return parts


@dataclass(frozen=True, slots=True)
class Bin:
    """The durations up to a limit, above that of the bin before.

    Args:
        limit: None for all longer durations.
    """

    limit: timedelta | None
    count: int
    part: Part


def histogram(counts: Sequence[int], limits_s: Sequence[float]) -> list[Bin]:
    """Returns the bins of durations that were counted in buckets.

    Args:
        counts: One number for each limit, and a last one for longer durations.
    """
    highest = max(counts, default=0)
    limits = [*(timedelta(seconds=limit) for limit in limits_s), None]
    heights = [HEIGHT * count / highest if highest else 0.0 for count in counts]
    return [
        Bin(limit, count, Part("bin", x * (BAR_WIDTH + GAP), round(HEIGHT - height, 2), BAR_WIDTH, round(height, 2)))
        for x, (limit, count, height) in enumerate(zip(limits, counts, heights, strict=True))
    ]


def counted(durations_s: Sequence[float], limits_s: Sequence[float]) -> list[int]:
    """Returns how many durations are in each bucket, as `histogram` takes them."""
    counts = [0] * (len(limits_s) + 1)
    for duration_s in durations_s:
        counts[bisect_left(limits_s, duration_s)] += 1
    return counts
