"""What the pages show of events and their deliveries. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from export_producers.events.deliveries import Delivery
from export_producers.events.listing import export_of
from export_worker.contract.batch_keys import is_batch_event
from export_worker.contract.event import TEST_PREFIX

SYMBOLS = {"pending": "◔", "given_up": "✕", "delivered": "✓"}
"""A shape for each state, so that no state is known by its colour alone."""
CLASSES = {"pending": "running", "given_up": "failed", "delivered": "succeeded"}
"""The classes of the style sheet that colour the states."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event with one sink.

    Args:
        name: The class that colours its state.
        export_id: None for a test event, and for that of a batch.
    """

    delivery: Delivery
    symbol: str
    name: str
    export_id: str | None
    is_batch: bool = False

    @property
    def tries(self) -> int:
        """How often the sink got it: each refusal, and the last time if the sink took it."""
        return self.delivery.failures + (self.delivery.state == "delivered")


def event_rows(deliveries: Sequence[Delivery]) -> list[EventRow]:
    """Returns what the pages show of events. Pure."""
    return [
        EventRow(
            delivery=each,
            symbol=SYMBOLS[each.state],
            name=CLASSES[each.state],
            export_id=None if _has_no_export(each.event_id) else export_of(each.event_id),
            is_batch=is_batch_event(each.event_id),
        )
        for each in deliveries
    ]


def _has_no_export(event_id: str) -> bool:
    return event_id.startswith(TEST_PREFIX) or is_batch_event(event_id)
