"""Which open exports wait for a slot, and which are slower than usual, as listings select them. Pure."""

from datetime import timedelta

from export_producers.filters import ExportFilter
from export_producers.reads.overview_document import ConnectionOverview, Overview
from export_worker.contract.model import epoch_ms
from export_worker.contract.slowness import DURATIONS_MIN
from export_worker.contract.status import Phase


def state_arguments(where: ExportFilter, overview: Overview) -> dict[str, object]:
    """Returns the arguments of `list.lua` for the state of a filter that has one phase at most.

    An export whose submit an operator has paused is parked too, but waits for the operator.
    """
    if where.state == "slow":
        since = {name: slow_since_ms(each, overview) for name, each in overview.connections.items()}
        return {"state": where.state, "slow_since": {name: each for name, each in since.items() if each}}
    is_submit = where.phase is Phase.QUEUED
    paused = {name: True for name, each in overview.connections.items() if is_submit and each.pause is not None}
    return {"state": where.state, "paused": paused}


def slow_since_ms(connection: ConnectionOverview, overview: Overview) -> dict[str, int]:
    """Returns since when, at the latest, an export of each kind is on its platform if it is slower than usual.

    A kind of which too few operations have ended has no usual duration.
    """
    return {
        kind: epoch_ms(overview.now - timedelta(seconds=usual.p95))
        for kind, usual in connection.durations.items()
        if usual.samples >= DURATIONS_MIN
    }
