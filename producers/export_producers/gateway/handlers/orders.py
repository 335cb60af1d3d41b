"""Reads the bodies of requests that change something: small JSON objects, each of one model."""

from collections.abc import Sequence
from typing import TypeVar

from aiohttp import web
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from export_producers.gateway.context import json_body
from export_worker.contract import model
from export_worker.contract.model import Model
from export_worker.contract.names import did_you_mean
from export_worker.contract.wording import plain_message
from export_worker.errors import FieldProblem, InvalidRequestError

PROBLEMS_MAX = 20
"""Reported of one body: no model has more fields."""

Order = TypeVar("Order", bound=Model)


async def read_order(request: web.Request, kind: type[Order]) -> Order:
    """Reads a body. Without a body, every field has its default.

    Raises:
        InvalidRequestError: The body is not JSON, or a field is wrong.
        ProblemError: The content type is not JSON, or the body takes too long to arrive.
    """
    return parse_order(await json_body(request) if request.can_read_body else b"", kind)


def parse_order(body: bytes, kind: type[Order]) -> Order:
    """Returns the order in a body.

    Raises:
        InvalidRequestError: The body is not JSON, or a field is wrong.
    """
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as error:
        fields = [field.alias or name for name, field in kind.model_fields.items()]
        raise InvalidRequestError([_problem(detail, fields) for detail in error.errors()[:PROBLEMS_MAX]]) from None


def _problem(detail: ErrorDetails, fields: Sequence[str]) -> FieldProblem:
    path = [str(part) for part in detail["loc"]]
    match detail["type"]:
        case model.FIELD_RULE:
            return FieldProblem(detail["ctx"]["field"], detail["ctx"]["rule"])
        case "extra_forbidden" if len(path) == 1:
            message = f"unknown field{did_you_mean(path[-1], fields)}; allowed here: {', '.join(fields)}"
        case "extra_forbidden":
            message = "unknown field"
        case _:
            message = plain_message(detail, table="a JSON object")
    return FieldProblem(".".join(path) or "request", message)
