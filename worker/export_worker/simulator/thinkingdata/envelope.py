"""The envelope of ThinkingData's answers. Errors have HTTP status 200, too."""

from typing import Any

from aiohttp import web

from export_worker.simulator.answers import json_answer

WRONG_PARAMETER = -1008
"""The only error code in the platform's document, where it is the answer to a missing parameter."""


def success(data: Any = None) -> web.Response:
    """Returns an answer with `return_code` 0."""
    envelope = {"return_code": 0, "return_message": "success"}
    return json_answer(envelope if data is None else {"data": data, **envelope})


def failure(message: str, code: int = WRONG_PARAMETER) -> web.Response:
    """Returns an answer with an error code and its message."""
    return json_answer({"return_code": code, "return_message": message})
