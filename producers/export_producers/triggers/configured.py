"""A trigger as the configuration of this process has it."""

from dataclasses import dataclass

from export_producers.triggers.template import Template


@dataclass(frozen=True, slots=True)
class ConfiguredTrigger:
    """The part of the section `triggers.NAME` that turns messages into requests.

    Args:
        template: None if a message is itself a request.
    """

    template: Template | None

    @property
    def connection(self) -> str | None:
        """The connection of every export of this trigger; None if a message can name any connection."""
        return None if self.template is None else self.template.connection
