"""The tables of the model: for a terminal, and for the guide."""

import re
from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from benchmarks.scale.model import DAY_S, Costs, Load, end_of, needs, processes

HEAD = ("exports a day", "kept", "Redis memory", "Redis", "control", "transfer", "gateway", "Redis servers")
GUIDE_GIB = 4.0
GUIDE = (
    Load(exports=10_000),
    Load(exports=100_000),
    Load(exports=1_000_000),
    Load(exports=1_000_000, retention_s=DAY_S),
    Load(exports=5_000_000, retention_s=DAY_S),
)
"""The loads in the guide: one file of 1 MiB, five minutes on the platform."""
BEGIN, END = "<!-- begin: make scale-model ARGS=--write -->", "<!-- end -->"


def rows(loads: Sequence[Load], costs: Costs, redis_gib: float) -> list[tuple[str, ...]]:
    """Returns one row for each load. Pure."""
    return [_row(load, costs, redis_gib) for load in loads]


def _row(load: Load, costs: Costs, redis_gib: float) -> tuple[str, ...]:
    need, end = needs(load, costs), end_of(load, costs, redis_gib)
    days = load.retention_s / DAY_S
    return (
        f"{load.exports:,.0f}",
        f"{days:g} day{'' if days == 1 else 's'}",
        f"{need.redis_mib:,.0f} MiB",
        f"{need.redis_cores:.2f} cores",
        *(
            f"{processes(cores)} of {costs[name]['process_mib']:.0f} MiB, {cores:.2f} cores"
            for name, cores in (
                ("control", need.control_cores),
                ("transfer", need.transfer_cores),
                ("gateway", need.gateway_cores),
            )
        ),
        f"{max(1, ceil(load.exports / end.exports))}",
    )


def ends(load: Load, costs: Costs, redis_gib: float) -> str:
    """Returns where one Redis ends, in a sentence. Pure."""
    week, day = (end_of(replace(load, retention_s=days * DAY_S), costs, redis_gib) for days in (7, 1))
    return (
        f"The memory of one Redis with maxmemory = {redis_gib:g} GiB ends at {_rounded(week.memory)} exports a day if "
        f"it keeps them for a week, and at {_rounded(day.memory)} if for a day. Its core ends at "
        f"{_rounded(day.processor)}."
    )


def _rounded(exports: float) -> str:
    """Returns a number with two significant digits."""
    return f"{float(f'{exports:.2g}'):,.0f}"


def guide(costs: Costs) -> str:
    """Returns the part of the guide, between its marks. Pure."""
    table = ["| " + " | ".join(row) + " |" for row in (HEAD, ("---:",) * len(HEAD), *rows(GUIDE, costs, GUIDE_GIB))]
    return "\n".join([BEGIN, "", *table, "", *_wrapped(ends(Load(), costs, GUIDE_GIB)), "", END])


def _wrapped(text: str, width: int = 120) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def with_guide(document: str, costs: Costs) -> str:
    """Returns a document with the present table between its marks. Pure."""
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: guide(costs), document, flags=re.DOTALL)
