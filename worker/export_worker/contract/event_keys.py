"""The keys in Redis of completion events and of their delivery to sinks."""

from dataclasses import dataclass

from export_worker.contract.namespace import Namespace


@dataclass(frozen=True, slots=True)
class EventKeys(Namespace):
    """The keys of events in one namespace."""

    def event(self, event_id: str) -> str:
        """String: one event as it is delivered."""
        return f"{self.namespace}:event:{event_id}"

    def outbox(self, sink: str) -> str:
        """Sorted set of event ids by the time (ms) of their next delivery to one sink. Version 0.2 does not know it."""
        return f"{self.namespace}:to-deliver:{sink}"

    def earlier_outbox(self, sink: str) -> str:
        """The outbox of version 0.2, which would remove events of packed records. Its events move to `outbox`."""
        return f"{self.namespace}:outbox:{sink}"

    def refusals(self, sink: str) -> str:
        """Hash of event id → `failures:first`: how often one sink has refused it, and since when (ms)."""
        return f"{self.namespace}:refusals:{sink}"

    def answers(self, sink: str) -> str:
        """Hash of event id → text: the last answer of one sink that has refused it. Version 0.2 does not write it."""
        return f"{self.namespace}:answers:{sink}"

    def undelivered(self, sink: str) -> str:
        """Hash of event id → JSON: an event whose delivery to one sink was given up, when and why."""
        return f"{self.namespace}:undelivered:{sink}"

    def given_up(self, sink: str) -> str:
        """Sorted set of the ids in `undelivered` by the time (ms) of the note. Version 0.2 does not write it."""
        return f"{self.namespace}:given-up:{sink}"

    def delivered(self, sink: str) -> str:
        """List of `ID MS AGE_MS`: the last events that one sink has taken, when, and how old; the newest first.

        Version 0.2 does not write it.
        """
        return f"{self.namespace}:delivered:{sink}"

    def sink_test(self, event_id: str) -> str:
        """String with a TTL: JSON as in `undelivered`, if a sink has refused this test event."""
        return f"{self.namespace}:sink-test:{event_id}"
