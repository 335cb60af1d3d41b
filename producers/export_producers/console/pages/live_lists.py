"""Rows of the pages Events and Triggers that change in place while a page is open."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from export_producers.events.deliveries import Delivery
from export_producers.queues.events import states_in
from export_producers.queues.queues import ExportQueues

RowParts = Mapping[str, str]
"""The HTML of each row by the name of its part."""


@dataclass(slots=True)
class LiveEvents:
    """The events of one page, with their sinks.

    Args:
        render: Renders the rows of events.
        shown: The events of the last read, by the names of their parts.
    """

    queues: ExportQueues
    render: Callable[[Sequence[Delivery]], RowParts]
    shown: Mapping[str, Delivery] = field(default_factory=dict)

    async def parts(self, found: Sequence[Delivery]) -> RowParts:
        """Returns the rows of the page, and those that have just left it, with their present state.

        Args:
            found: The events that are on the page now.
        """
        now_shown = {event_part(each): each for each in found}
        left = [each for name, each in self.shown.items() if name not in now_shown]
        present = await states_in(self.queues, [(each.event_id, each.sink) for each in left])
        self.shown = now_shown
        changed = [
            each if state is None else _with_state(each, state) for each, state in zip(left, present, strict=True)
        ]
        return self.render([*found, *changed])


def event_part(event: Delivery) -> str:
    """Returns the name of the part of a page that has the row of an event and a sink."""
    return f"event-{event.event_id}-{event.sink}"


def _with_state(event: Delivery, state: Mapping[str, object]) -> Delivery:
    return Delivery.model_validate(
        {"event_id": event.event_id, "event_at": event.event_at, "sink": event.sink, "type": event.type, **state}
    )


@dataclass(slots=True)
class LiveLetters:
    """The dead letters of one page, the newest first. A dead letter does not change: it is there or not.

    Args:
        limit: The most dead letters of a page.
        render: Renders what the page shows in the place of a dead letter that has left it.
        shown: The entries of the last read.
    """

    limit: int
    render: Callable[[str], str]
    shown: Sequence[str] = ()

    def parts(self, entries: Sequence[str]) -> RowParts:
        """Returns the names of the dead letters of the page, and what replaces those that were just removed."""
        is_last_page = len(entries) < self.limit
        oldest = _order(entries[-1]) if entries else (0, 0)
        removed = [entry for entry in self.shown if entry not in entries and (is_last_page or _order(entry) > oldest)]
        self.shown = entries
        return {
            **{f"dead-{entry}": "" for entry in entries},
            **{f"dead-{entry}": self.render(entry) for entry in removed},
        }


def _order(entry: str) -> tuple[int, int]:
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)
