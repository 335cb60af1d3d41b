"""Calls ThinkingData and reads its envelope: HTTP 200 says nothing, `return_code` does."""

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
from export_worker.platforms.http.client import Auth, Call, HttpClient
from export_worker.platforms.http.responses import one_line
from export_worker.platforms.thinkingdata.settings import ThinkingdataSettings


@dataclass(frozen=True, slots=True)
class Envelope:
    """One answer as the platform wraps it.

    Args:
        call: Method and path of the question, for messages.
        code: 0 is good.
        message: As it came; may hold anything.
    """

    call: str
    code: int
    message: str
    data: Any


def envelope_of(value: Any, call: str) -> Envelope | None:
    """The value as an envelope; None when it is none. Codes are taken as text, too."""
    if not isinstance(value, Mapping):
        return None
    code = value.get("return_code")
    if isinstance(code, str) and code.strip().removeprefix("-").isdecimal():
        code = int(code)
    if not isinstance(code, int) or isinstance(code, bool):
        return None
    message = value.get("return_message")
    return Envelope(call, code, message if isinstance(message, str) else "", value.get("data"))


class ThinkingdataApi:
    """Asks the platform, and says what an answer means."""

    def __init__(self, client: HttpClient, auth: Auth, settings: ThinkingdataSettings) -> None:
        self._client = client
        self._auth = auth
        self._settings = settings

    @property
    def redactor(self) -> Redactor:
        """Knows the token."""
        return self._client.redactor

    async def ask(self, call: Call) -> Envelope:
        """The envelope of an answer, whatever its code.

        Raises:
            PlatformError: No answer, an error status, or no envelope.
        """
        value = await self._client.call(call, self._auth)
        envelope = envelope_of(value, str(call))
        if envelope is None:
            shown = one_line(json.dumps(value, ensure_ascii=False), self.redactor)
            raise PlatformMalformedError(f"{call}: the answer has no return_code: {shown}")
        return envelope

    async def data(self, call: Call) -> Any:
        """The data of a good answer.

        Raises:
            PlatformError: As `ask`, or `return_code` is not 0.
        """
        return self.good(await self.ask(call))

    async def object(self, call: Call) -> Mapping[str, Any]:
        """The data of a good answer, which must be an object.

        Raises:
            PlatformError: As `data`, or it is none.
        """
        return self.good_object(await self.ask(call))

    def good(self, envelope: Envelope) -> Any:
        """The data, if the answer is good.

        Raises:
            PlatformError: It is not.
        """
        problem = self.problem(envelope)
        if problem is not None:
            raise problem
        return envelope.data

    def good_object(self, envelope: Envelope) -> Mapping[str, Any]:
        """The data, if the answer is good and holds an object.

        Raises:
            PlatformError: It is not, or does not.
        """
        data = self.good(envelope)
        if not isinstance(data, Mapping):
            raise PlatformMalformedError(f"{envelope.call}: the answer's data is no object")
        return data

    def problem(self, envelope: Envelope) -> PlatformError | None:
        """The error that an answer stands for; None when it is good."""
        settings, code = self._settings, envelope.code
        if code == 0:
            return None
        said = one_line(envelope.message, self.redactor)
        message = f"{envelope.call}: return_code {code}" + (f": {said}" if said else "")
        if code in settings.throttled_codes:
            return PlatformThrottledError(message)
        if _mentions(envelope.message, settings.auth_messages):
            return AuthFailedError(message)
        if code in settings.retry_codes:
            return PlatformUnavailableError(message)
        return PlatformRefusedError(message)

    def is_gone(self, envelope: Envelope) -> bool:
        """Whether the SQL API says that a task, or a page of it, is not there (any more)."""
        if not isinstance(self.problem(envelope), PlatformRefusedError):
            return False
        return envelope.code in self._settings.gone_codes or _mentions(envelope.message, self._settings.gone_messages)


def _mentions(message: str, fragments: Sequence[str]) -> bool:
    folded = message.casefold()
    return any(fragment.casefold() in folded for fragment in fragments)
