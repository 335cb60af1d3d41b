"""Calls of a platform's API beside exports: one typed table for each driver, against which arguments are checked."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

ParameterType = Literal["integer", "text", "boolean", "list", "object"]
ParameterLocation = Literal["path", "query", "json", "variables"]
Body = Literal["none", "json", "csv"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter, under the name that the platform's document gives it.

    Args:
        location: Where it is sent: in the path's template, the query string, the JSON body or GraphQL's variables.
        max_chars: Limit that the document states for a text.
        pattern: Regular expression for the whole text, where the document states the allowed characters.
        choices: The only allowed values, where the document lists them.
        about: A short description for people.
        maximum: Limit that the document states for a number.
        max_items: Limit that the document states for a list.
        form: What `pattern` allows, in words and with an example: `8 letters or digits, such as WlGk4Daj`.
        trimmed: Blanks around a text are removed before it is checked.
    """

    name: str
    type: ParameterType
    location: ParameterLocation
    required: bool = False
    max_chars: int | None = None
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    about: str = ""
    maximum: int | None = None
    max_items: int | None = None
    form: str = ""
    trimmed: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of the platform's API.

    Args:
        name: The document's name for it: the last segment of the path, or a GraphQL field.
        method: HTTP method.
        path: Template; `{name}` stands for the parameter of that name with the location `path`.
        about: A short description for people.
        body: What `--body` accepts: nothing, a JSON object that is merged with the parameters, or CSV that is streamed.
        one_of: Groups of parameters of which exactly one must be given.
        aliases: Shorter names for people.
        deletes: The call deletes something, so the command asks for confirmation before it sends it.
        any_of: Groups of parameters of which at least one must be given.
        replaces: The call replaces something as a whole, so a repetition has no further effect.
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
    any_of: tuple[tuple[str, ...], ...] = ()
    replaces: bool = False


@runtime_checkable
class Operations(Protocol):
    """Capability: the driver can make the other calls that the platform's documents describe."""

    operations: Mapping[str, Operation]
    """The calls, by name."""

    async def call(self, operation: Operation, arguments: Mapping[str, Any], body: AsyncIterator[bytes] | None) -> Any:
        """Makes one call with arguments that have been checked.

        Args:
            operation: An entry of `operations`.
            arguments: Values by parameter name, with their types. The fields of a JSON body are among them.
            body: The bytes of a CSV body; None for every other operation.

        Returns:
            The data of the response, unchanged.

        Raises:
            PlatformError: The platform did not give a usable response.
        """
