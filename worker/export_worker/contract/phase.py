"""The phases of an export. Apart from the documents, so that the command line needs no pydantic."""

from enum import StrEnum


class Phase(StrEnum):
    """The phase of an export."""

    QUEUED = "queued"
    RUNNING = "running"
    TRANSFERRING = "transferring"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the export has ended. Only a retry leaves a terminal phase."""
        return self in TERMINAL_PHASES


TERMINAL_PHASES = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED})
