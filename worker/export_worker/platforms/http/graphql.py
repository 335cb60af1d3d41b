"""GraphQL over HTTP: sends a constant document with variables, and returns the data of the response."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from export_worker.credentials import Redactor
from export_worker.errors import (
    PlatformError,
    PlatformMalformedError,
    PlatformNotFoundError,
    PlatformRefusedError,
    PlatformUnavailableError,
)
from export_worker.platforms.http.client import CALL_TIMEOUT_S, Call, HttpClient
from export_worker.platforms.http.outgoing import Auth
from export_worker.platforms.http.responses import one_line, reading_answer

_TEMPORARY = frozenset(
    {"INTERNAL", "INTERNAL_ERROR", "INTERNAL_SERVER_ERROR", "SERVICE_UNAVAILABLE", "TIMEOUT", "UNAVAILABLE"}
)
"""Values of `extensions.code` or `extensions.classification` that mean a temporary fault of the server. GraphQL defines
none; common servers use these. An error without such a value counts as a refusal, since the two look the same."""
_UNKNOWN = frozenset({"NOT_FOUND"})
"""Values of the same fields that mean that the server does not know an id."""


@dataclass(frozen=True, slots=True)
class Document:
    """One operation of a GraphQL API.

    Args:
        name: Name of the operation in the text.
        field: The one field that it selects at the root.
        text: The document. It is a constant; everything that varies is a variable.
        starts_work: It starts work on the platform; see `Call`.
    """

    name: str
    field: str
    text: str
    starts_work: bool = False


def _never(_: dict[str, Any]) -> bool:
    return False


class GraphQL:
    """Executes documents at `{base_url}/graphql`."""

    def __init__(self, client: HttpClient, auth: Auth) -> None:
        self._client = client
        self._auth = auth

    async def execute(
        self,
        document: Document,
        variables: Mapping[str, Any],
        *,
        is_sufficient: Callable[[dict[str, Any]], bool] = _never,
        timeout_s: float = CALL_TIMEOUT_S,
        is_listing: bool = False,
    ) -> dict[str, Any]:
        """Returns the `data` of the response.

        Args:
            document: The document to execute.
            variables: Only variables that are given: a null does not mean the same as a missing variable.
            is_sufficient: Returns whether the data of a response that also has errors contains what the caller needs.
            timeout_s: Seconds for the whole exchange.
            is_listing: See `Call`.

        Raises:
            PlatformRefusedError: The response has errors. `PlatformNotFoundError` if all state that an id is unknown.
            PlatformUnavailableError: No response, or only errors that are temporary faults of the server.
            PlatformError: See `HttpClient.call`.
        """
        body = {"operationName": document.name, "query": document.text, "variables": dict(variables)}
        starts_work = document.starts_work
        call = Call("POST", "/graphql", json=body, timeout_s=timeout_s, is_listing=is_listing, starts_work=starts_work)
        response = await self._client.call(call, self._auth)
        with reading_answer(starts_work=document.starts_work):
            envelope = _envelope(document, response)
            data = envelope.get("data")
            errors = envelope.get("errors")
            if errors and not (isinstance(data, dict) and is_sufficient(data)):
                raise _error_for(document, errors, self._client.redactor)
            if not isinstance(data, dict):
                raise PlatformMalformedError(f"{document.name}: the response has neither data nor errors")
            return data


def _envelope(document: Document, response: Any) -> dict[str, Any]:
    """Returns the response object. GrowingIO's reference also shows it within a list of one item."""
    if isinstance(response, list) and len(response) == 1:
        response = response[0]
    if not isinstance(response, dict):
        raise PlatformMalformedError(f"{document.name}: the response is a {type(response).__name__}, not an object")
    return response


def _error_for(document: Document, errors: Any, redactor: Redactor) -> PlatformError:
    items = errors if isinstance(errors, list) else [errors]
    text = one_line("; ".join(map(_message, items)), redactor)
    message = f"{document.name}: {text}"
    categories = list(map(_categories, items))
    if all(not _TEMPORARY.isdisjoint(each) for each in categories):
        return PlatformUnavailableError(message)
    if all(not _UNKNOWN.isdisjoint(each) for each in categories):
        return PlatformNotFoundError(message)
    return PlatformRefusedError(message)


def _message(error: Any) -> str:
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error["message"])
    return str(error)


def _categories(error: Any) -> set[str]:
    extensions = error.get("extensions") if isinstance(error, dict) else None
    if not isinstance(extensions, dict):
        return set()
    return {str(extensions.get(key)).upper() for key in ("code", "classification")}
