"""Reads the bodies of requests that change something: small JSON objects, each of one model."""

from typing import TypeVar

from aiohttp import web
from pydantic import ValidationError

from export_producers.gateway.context import json_body
from export_worker.contract.model import Model
from export_worker.contract.names import did_you_mean
from export_worker.contract.wording import plain_message
from export_worker.errors import FieldProblem, InvalidRequestError

PROBLEMS_MAX = 20
"""Reported of one body: no model has more fields."""

Order = TypeVar("Order", bound=Model)


async def read_order(request: web.Request, model: type[Order]) -> Order:
    """Reads a body. Without a body, every field has its default.

    Raises:
        InvalidRequestError: The body is not JSON, or a field is wrong.
        ProblemError: The content type is not JSON, or the body takes too long to arrive.
    """
    body = await json_body(request) if request.can_read_body else b""
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        fields = [field.alias or name for name, field in model.model_fields.items()]
        problems = [
            FieldProblem(
                ".".join(map(str, detail["loc"])) or "request",
                f"unknown field{did_you_mean(str(detail['loc'][-1]), fields)}; allowed here: {', '.join(fields)}"
                if detail["type"] == "extra_forbidden"
                else plain_message(detail, table="a JSON object"),
            )
            for detail in error.errors()[:PROBLEMS_MAX]
        ]
        raise InvalidRequestError(problems) from None
