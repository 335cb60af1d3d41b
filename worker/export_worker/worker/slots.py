"""The slots of one role in a worker, and the steps that follow at once in this process."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from export_worker.contract.redis_keys import Role
from export_worker.lifecycle.export import Export, Queued, Running, Transferring
from export_worker.redis.claims import ClaimedStep
from export_worker.redis.kept_steps import Keep
from export_worker.worker.store_gates import StoreGates


@dataclass
class Slots:
    """The slots for the steps of one role.

    Args:
        most: How many there are.
        per_connection: How many the steps of one connection may use; None for all.
    """

    most: int
    per_connection: int | None = None
    used: Counter[str] = field(default_factory=Counter)

    @property
    def free(self) -> int:
        """How many slots are not in use. Below 0 for the moment in which a step is followed by a kept one."""
        return self.most - self.used.total()

    def has_room(self, connection: str) -> bool:
        """Whether a further step of this connection may run."""
        return self.free > 0 and (self.per_connection is None or self.used[connection] < self.per_connection)

    def take(self, connection: str) -> None:
        """Takes a slot for a step of this connection."""
        self.used[connection] += 1

    def give_back(self, connection: str) -> None:
        """Frees a slot of this connection."""
        self.used[connection] -= 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where steps of one role run in this worker.

    Args:
        start: Starts a step whose slot is taken.
        note_due: Receives when a further step will be due.
    """

    slots: Slots
    start: Callable[[ClaimedStep], None]
    note_due: Callable[[datetime], None]


@dataclass(frozen=True, slots=True)
class Reserved:
    """A slot that is taken for the next step of an export, in case the commit claims it."""

    place: Place
    connection: str
    keep: Keep

    def give_back(self) -> None:
        """Frees the slot: the commit has not claimed the step."""
        self.place.slots.give_back(self.connection)


class Places:
    """The places of all roles that run in this worker. An export stays here for its next step if there is room.

    A role that stops has no place any more, so that a stopping worker keeps nothing.
    """

    def __init__(self, gates: StoreGates) -> None:
        self._gates = gates
        self._by_role: dict[Role, Place] = {}

    def open(self, role: Role, place: Place) -> None:
        """Adds the place of a role."""
        self._by_role[role] = place

    def close(self, role: Role) -> None:
        """Removes the place of a role: no export stays for such a step any more."""
        with suppress(KeyError):
            del self._by_role[role]

    def note_due(self, export: Export) -> None:
        """Notes when the next step of an export is due, so that it is claimed here in time."""
        if (place := self._by_role.get(export.role)) is not None:
            place.note_due(export.due_at)

    def reserve(self, claimed: ClaimedStep, after: Export) -> Reserved | None:
        """Takes a slot for the next step of an export; None if it must not stay, or there is no room.

        Only an export that got further stays: it was submitted, or its files are ready. The slot of a control step is
        free again when its next one starts, so that a worker with one slot can keep an export, too.
        """
        place, connection = self._by_role.get(after.role), after.request.connection
        if place is None or claimed.slotless or not _got_further(claimed.export, after):
            return None
        is_same_slot = after.role == claimed.role
        if not is_same_slot and not self._has_room(place.slots, after.role, connection):
            return None
        place.slots.take(connection)
        return Reserved(place, connection, Keep.now(is_last_slot=place.slots.free + is_same_slot <= 0))

    def _has_room(self, slots: Slots, role: Role, connection: str) -> bool:
        return slots.has_room(connection) and not (role == "transfer" and connection in self._gates.closed())


def _got_further(before: Export, after: Export) -> bool:
    return isinstance(after.state, Running if isinstance(before.state, Queued) else Transferring) and not isinstance(
        before.state, Transferring
    )
