"""Any other call that a platform's document describes: one typed table a driver, checked before anything is sent."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

ParameterType = Literal["integer", "text", "boolean", "list", "object"]
Place = Literal["path", "query", "json", "variables"]
Body = Literal["none", "json", "csv"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter, under the name that the document gives it.

    Args:
        place: Where it travels: in the path's template, the query string, the JSON body or GraphQL's variables.
        max_chars: As the document limits it.
        pattern: Regular expression for the whole text, where the document says which characters it may have.
        choices: The only values, where the document lists them.
        about: A few words for people.
        maximum: Of a number, as the document limits it.
        max_items: Of a list, as the document limits it.
    """

    name: str
    type: ParameterType
    place: Place
    required: bool = False
    max_chars: int | None = None
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    about: str = ""
    maximum: int | None = None
    max_items: int | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One call.

    Args:
        name: As the document calls it: a path's last segment, or a GraphQL field.
        method: HTTP method.
        path: Template; `{parameter}` stands for a parameter of the place `path`.
        body: What `--body` takes: nothing, a JSON object that goes beside the parameters, or CSV that is streamed.
        one_of: Groups of parameters of which exactly one is needed.
        aliases: Shorter names for people.
        deletes: Asks before it is sent.
    """

    name: str
    method: str
    path: str
    about: str
    parameters: tuple[Parameter, ...] = ()
    body: Body = "none"
    one_of: tuple[tuple[str, ...], ...] = ()
    aliases: tuple[str, ...] = ()
    deletes: bool = False


@runtime_checkable
class Operations(Protocol):
    """Capability: the driver can make the other calls of its platform's documents."""

    operations: Mapping[str, Operation]
    """By name."""

    async def call(self, operation: Operation, arguments: Mapping[str, Any], body: AsyncIterator[bytes] | None) -> Any:
        """Make one call with arguments that have been checked.

        Args:
            body: CSV as it comes; None for every other operation (a JSON body is among the arguments).

        Returns:
            The answer's data, as the platform has it.

        Raises:
            PlatformError: The platform does not answer as it should.
        """
