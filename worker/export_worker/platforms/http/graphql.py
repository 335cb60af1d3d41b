"""GraphQL over HTTP: a constant document and variables in, the answer's data out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from export_worker.credentials import Redactor
from export_worker.errors import PlatformError, PlatformMalformedError, PlatformRefusedError, PlatformUnavailableError
from export_worker.platforms.http.client import ANSWER_TIMEOUT_S, Auth, Call, HttpClient
from export_worker.platforms.http.responses import one_line

_PASSING = frozenset(
    {"INTERNAL", "INTERNAL_ERROR", "INTERNAL_SERVER_ERROR", "SERVICE_UNAVAILABLE", "TIMEOUT", "UNAVAILABLE"}
)
"""Words of `extensions.code` or `extensions.classification` for a fault of the server's own. GraphQL names none; these
are what common servers say. Without such a word a fault cannot be told from a refusal, and is taken for one."""


@dataclass(frozen=True, slots=True)
class Document:
    """One operation of a GraphQL API.

    Args:
        name: The operation's name in the text.
        field: The one field that it selects at the root.
        text: The document. A constant: whatever varies goes into variables.
    """

    name: str
    field: str
    text: str


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
        enough: Callable[[dict[str, Any]], bool] = _never,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> dict[str, Any]:
        """The `data` of the answer.

        Args:
            document: What is asked.
            variables: Only what is given: a null is not the same as nothing.
            enough: Whether data that comes beside errors holds what the caller needs all the same.
            timeout_s: Seconds for the whole exchange.

        Raises:
            PlatformRefusedError: The answer has errors.
            PlatformUnavailableError: No answer, or errors that the server calls its own.
            PlatformError: See `HttpClient.call`.
        """
        body = {"operationName": document.name, "query": document.text, "variables": dict(variables)}
        answer = await self._client.call(Call("POST", "/graphql", json=body, timeout_s=timeout_s), self._auth)
        envelope = _envelope(document, answer)
        data = envelope.get("data")
        errors = envelope.get("errors")
        if errors and not (isinstance(data, dict) and enough(data)):
            raise _problem(document, errors, self._client.redactor)
        if not isinstance(data, dict):
            raise PlatformMalformedError(f"{document.name}: the answer has neither data nor errors")
        return data


def _envelope(document: Document, answer: Any) -> dict[str, Any]:
    """The answer itself; GrowingIO's reference shows it within a list of one, too."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, dict):
        raise PlatformMalformedError(f"{document.name}: the answer is no GraphQL answer (a {type(answer).__name__})")
    return answer


def _problem(document: Document, errors: Any, redactor: Redactor) -> PlatformError:
    items = errors if isinstance(errors, list) else [errors]
    text = one_line("; ".join(map(_message, items)), redactor)
    kind = PlatformUnavailableError if all(map(_is_passing, items)) else PlatformRefusedError
    return kind(f"{document.name}: {text}")


def _message(error: Any) -> str:
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error["message"])
    return str(error)


def _is_passing(error: Any) -> bool:
    extensions = error.get("extensions") if isinstance(error, dict) else None
    if not isinstance(extensions, dict):
        return False
    words = {str(extensions.get(key)).upper() for key in ("code", "classification")}
    return not _PASSING.isdisjoint(words)
