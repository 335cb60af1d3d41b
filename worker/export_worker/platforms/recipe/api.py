"""Makes the calls of a recipe, and recognizes answers that are errors, whatever their status."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from export_worker.errors import (
    AuthFailedError,
    PlatformError,
    PlatformMalformedError,
    PlatformNotFoundError,
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnclearError,
)
from export_worker.platforms.http.client import INLINE_JSON_BYTES, Call, HttpClient
from export_worker.platforms.http.outgoing import Auth
from export_worker.platforms.http.responses import HttpResponse, error_for, excerpt_of_body, one_line
from export_worker.recipes.model import ErrorRules
from export_worker.recipes.templates import TemplateError, as_text, expression

_ERRORS: Mapping[str, type[PlatformError]] = {
    "throttled": PlatformThrottledError,
    "unauthorized": AuthFailedError,
    "not_found": PlatformNotFoundError,
    "retry": PlatformUnclearError,
}
"""The error of each rule. The first rule that holds decides. An error that is worth a retry is no outage: an API that
answers at all may refuse this export only."""

_NO_JSON: Any = object()


class RecipeApi:
    """Calls the API of a recipe.

    Args:
        client: Client of the connection.
        auth: Provides the credential.
        rules: How an answer is known to be an error.
    """

    def __init__(self, client: HttpClient, auth: Auth, rules: ErrorRules) -> None:
        self._client = client
        self._auth = auth
        self._rules = rules

    async def answer(self, call: Call) -> Any:
        """Returns the JSON of the answer.

        Raises:
            PlatformError: No answer, an error by its status or by a rule, or no JSON.
        """
        response, value = await self._exchange(call)
        # A body that is no JSON is parsed once more, for the error.
        return await self._client.json(response) if value is _NO_JSON else value

    async def response(self, call: Call) -> HttpResponse:
        """Returns the answer, which need not be JSON.

        Raises:
            PlatformError: No answer, or an error by its status or by a rule.
        """
        return (await self._exchange(call))[0]

    async def _exchange(self, call: Call) -> tuple[HttpResponse, Any]:
        """Makes a call, and repeats it once if there is a new credential after the old one was refused."""
        credential = await self._auth.credential()
        response = await self._client.exchange(call, credential)
        value = await _parsed(response)
        error = self._error_of(response, value)
        if isinstance(error, AuthFailedError) and (fresh := await self._auth.renew(credential)) is not None:
            response = await self._client.exchange(call, fresh)
            value = await _parsed(response)
            error = self._error_of(response, value)
        if error is not None:
            raise error
        return response, value

    def _error_of(self, response: HttpResponse, value: Any) -> PlatformError | None:
        by_status = error_for(response, self._client.redactor)
        if value is _NO_JSON:
            return by_status
        try:
            if by_status is not None:
                by_status = error_for(response, self._client.redactor, self._stated(value))
            return self._by_rule(response, value, by_status)
        except TemplateError as error:
            message = f"{response.call}: {error}; see the section errors of the recipe"
            return by_status or PlatformMalformedError(message, unclear=response.starts_work)

    def _by_rule(self, response: HttpResponse, answer: Any, by_status: PlatformError | None) -> PlatformError | None:
        success = self._rules.success
        if by_status is None and success is not None and holds(success, answer):
            return None
        for name, kind in _ERRORS.items():
            rule = getattr(self._rules, name)
            if rule is not None and holds(rule, answer):
                wait_s = None if by_status is None else by_status.retry_after_s
                return kind(self._message(response, answer), retry_after_s=wait_s)
        if by_status is None and success is not None:
            return PlatformRefusedError(self._message(response, answer))
        return by_status

    def _message(self, response: HttpResponse, answer: Any) -> str:
        shown = self._stated(answer) or excerpt_of_body(response.body, self._client.redactor)
        status = "" if response.status < 300 else f" (HTTP {response.status})"
        return f"{response.call}: the API reports an error{status}: {shown}"

    def _stated(self, answer: Any) -> str | None:
        """Returns the message of an error as one line, if the recipe finds it."""
        source = self._rules.message
        text = None if source is None else as_text(expression(source).value(answer))
        return one_line(text, self._client.redactor) if text else None


async def _parsed(response: HttpResponse) -> Any:
    """Returns the JSON value of a body of any status, or `_NO_JSON`. A long body is parsed in a thread."""
    if len(response.body) <= INLINE_JSON_BYTES:
        return _value_of(response.body)
    return await asyncio.to_thread(_value_of, response.body)


def _value_of(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return _NO_JSON


def holds(source: str, answer: Any) -> bool:
    """Returns whether an expression finds something that is neither false nor empty. Raises TemplateError."""
    match expression(source).value(answer):
        case None | False | "":
            return False
        case dict() | list() as found:
            return bool(found)
        case _:
            return True
