"""Which queue has a connection. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from export_worker.errors import FieldProblem, InvalidRequestError


@dataclass(frozen=True, slots=True)
class Routes:
    """The connections of all queues.

    Args:
        announced: Connection → platform of each queue, as its workers have announced them.
        stated: The connections that the configuration states for queues.
        missing: The queues whose announcements could not be read, so that those of before may be incomplete.
    """

    announced: Mapping[str, Mapping[str, str]]
    stated: Mapping[str, Collection[str]]
    missing: Sequence[str] = ()

    @property
    def platforms(self) -> dict[str, str]:
        """Connection → platform: the connections of all queues."""
        found: dict[str, str] = {}
        for name, connections in self.announced.items():
            stated = self.stated.get(name, ())
            found |= {each: connections[each] for each in connections if each in stated or each not in found}
        return found

    def queue_of(self, connection: str) -> str | None:
        """Returns the queue of a connection; None if no queue has it.

        Raises:
            InvalidRequestError: The workers of several queues have announced it, and the configuration states none.
        """
        stated = [name for name, connections in self.stated.items() if connection in connections]
        found = stated or [name for name, connections in self.announced.items() if connection in connections]
        if len(found) > 1:
            names = " and ".join(found)
            fix = f"add it to gateway.queues.{found[0]}.connections, or to those of the other queue"
            raise InvalidRequestError(
                [FieldProblem("connection", f"workers of the queues {names} have announced {connection!r}; {fix}")]
            )
        return found[0] if found else None
