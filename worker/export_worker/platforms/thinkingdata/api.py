"""Sends calls to ThinkingData and reads its envelope: `return_code`, not the HTTP status, states success or failure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from export_worker.credentials import Redactor
from export_worker.errors import (
    AuthFailedError,
    PlatformError,
    PlatformMalformedError,
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnavailableError,
)
from export_worker.platforms.http.client import Call, HttpClient
from export_worker.platforms.http.outgoing import Auth
from export_worker.platforms.http.responses import one_line, reading_answer
from export_worker.platforms.http.uploads import rewound
from export_worker.platforms.http.values import whole_number
from export_worker.platforms.thinkingdata.settings import ThinkingdataSettings


@dataclass(frozen=True, slots=True)
class Envelope:
    """The envelope around the data of a response.

    Args:
        call: Method and path of the request, for messages.
        code: 0 means success.
        message: The platform's message, not masked.
        data: The data within the envelope.
    """

    call: str
    code: int
    message: str
    data: Any


def envelope_of(value: Any, call: str) -> Envelope | None:
    """Parses an envelope; None when the value is not one. A code can be any form of a whole number."""
    if not isinstance(value, Mapping):
        return None
    code = whole_number(value.get("return_code"))
    if code is None:
        return None
    message = value.get("return_message")
    return Envelope(call, code, message if isinstance(message, str) else "", value.get("data"))


class ThinkingdataApi:
    """Sends calls to the platform, and translates failures into errors of this project."""

    def __init__(self, client: HttpClient, auth: Auth, settings: ThinkingdataSettings) -> None:
        self._client = client
        self._auth = auth
        self._settings = settings

    @property
    def redactor(self) -> Redactor:
        """Masks the token."""
        return self._client.redactor

    async def send(self, call: Call) -> Envelope:
        """Sends a call and returns the envelope of the response, whatever its code.

        The platform refuses a token with status 200. The call is repeated once then, if there is another token.

        Raises:
            PlatformError: No response, an error status, or no envelope.
        """
        credential = await self._auth.credential()
        envelope = await self._exchange(call)
        is_refused = isinstance(self.error_for(envelope), AuthFailedError)
        if is_refused and await rewound(call.data) and await self._auth.renew(credential) is not None:
            return await self._exchange(call)
        return envelope

    async def _exchange(self, call: Call) -> Envelope:
        value = await self._client.call(call, self._auth)
        envelope = envelope_of(value, str(call))
        if envelope is None:
            excerpt = one_line(json.dumps(value, ensure_ascii=False), self.redactor)
            message = f"{call}: the response has no return_code: {excerpt}"
            raise PlatformMalformedError(message, unclear=call.starts_work)
        return envelope

    async def data(self, call: Call) -> Any:
        """Sends a call and returns the data of a successful response.

        Raises:
            PlatformError: See `send`; or `return_code` is not 0.
        """
        envelope = await self.send(call)
        with reading_answer(starts_work=call.starts_work):
            return self.data_of(envelope)

    async def object(self, call: Call) -> Mapping[str, Any]:
        """Sends a call and returns the data of a successful response, which must be an object.

        Raises:
            PlatformError: See `data`; or the data is no object.
        """
        envelope = await self.send(call)
        with reading_answer(starts_work=call.starts_work):
            return self.object_of(envelope)

    def data_of(self, envelope: Envelope) -> Any:
        """Returns the data of a successful response.

        Raises:
            PlatformError: The response is a failure.
        """
        error = self.error_for(envelope)
        if error is not None:
            raise error
        return envelope.data

    def object_of(self, envelope: Envelope) -> Mapping[str, Any]:
        """Returns the data of a successful response, which must be an object.

        Raises:
            PlatformError: The response is a failure, or its data is no object.
        """
        data = self.data_of(envelope)
        if not isinstance(data, Mapping):
            raise PlatformMalformedError(f"{envelope.call}: the response's data is no object")
        return data

    def error_for(self, envelope: Envelope) -> PlatformError | None:
        """Returns the error for the envelope's code, or None when the code means success."""
        settings, code = self._settings, envelope.code
        if code == 0:
            return None
        excerpt = one_line(envelope.message, self.redactor)
        message = f"{envelope.call}: return_code {code}" + (f": {excerpt}" if excerpt else "")
        if code in settings.throttled_codes:
            return PlatformThrottledError(message)
        if _mentions(envelope.message, settings.auth_messages):
            return AuthFailedError(message)
        if code in settings.retry_codes:
            return PlatformUnavailableError(message)
        return PlatformRefusedError(message)

    def is_missing(self, envelope: Envelope) -> bool:
        """Returns whether the SQL API reports that a task, or a page of its result, does not exist or has expired."""
        if not isinstance(self.error_for(envelope), PlatformRefusedError):
            return False
        return envelope.code in self._settings.gone_codes or _mentions(envelope.message, self._settings.gone_messages)


def _mentions(message: str, fragments: Sequence[str]) -> bool:
    folded = message.casefold()
    return any(fragment.casefold() in folded for fragment in fragments)
