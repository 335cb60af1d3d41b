"""Parses a request, or reports each wrong field and what is allowed."""

from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from export_worker.contract.model import FIELD_RULE, Model
from export_worker.contract.output import Output
from export_worker.contract.request import ExportRequest, kind_models
from export_worker.errors import FieldProblem, InvalidRequestError

REQUEST_MAX_BYTES = 64 * 1024
"""Much more than 60 property names and 4 KiB of metadata need."""

PROBLEMS_MAX = 100
"""Reported of one request: a report of thousands of wrong fields would be many times as large as the request."""


def parse_request(body: bytes | str) -> ExportRequest:
    """Parses one request from JSON.

    Raises:
        InvalidRequestError: The body is not JSON, or too large, or a field is wrong. It names up to `PROBLEMS_MAX`
            problems.
    """
    # The JSON parser then refuses a lone surrogate.
    data = body.encode(errors="surrogatepass") if isinstance(body, str) else body
    if len(data) > REQUEST_MAX_BYTES:
        raise InvalidRequestError([FieldProblem("request", f"must have at most {REQUEST_MAX_BYTES} bytes")])
    try:
        return ExportRequest.model_validate_json(data)
    except ValidationError as error:
        raise InvalidRequestError([_problem(detail) for detail in error.errors()[:PROBLEMS_MAX]]) from None


def _problem(detail: ErrorDetails) -> FieldProblem:
    location = detail["loc"]
    if detail["type"] == "union_tag_invalid" or detail["type"] == "union_tag_not_found":
        return FieldProblem("export.kind", f"must be one of {', '.join(kind_models())}")
    path = [str(part) for part in location if part not in kind_models()]
    if detail["type"] == FIELD_RULE:
        path.append(detail["ctx"]["field"])
    return FieldProblem(".".join(path) or "request", _message(location, detail))


def _message(location: tuple[int | str, ...], detail: ErrorDetails) -> str:
    context: dict[str, Any] = detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            message = "is required"
        case "extra_forbidden":
            message = f"unknown field; allowed here: {', '.join(_allowed(location))}"
        case "literal_error":
            message = f"must be {context['expected']}"
        case "string_pattern_mismatch":
            message = f"must match {context['pattern']}"
        case "value_error":
            message = str(context["error"])
        case _ if detail["type"] == FIELD_RULE:
            message = context["rule"]
        case "json_invalid":
            message = f"is not JSON ({context['error']})"
        case "model_type" | "model_attributes_type" | "dict_type":
            message = "must be a JSON object"
        case _:
            message = detail["msg"].replace("Input should", "must")
    return message


def _allowed(location: tuple[int | str, ...]) -> list[str]:
    """Returns the fields of the model that has the unknown field."""
    model: type[Model] = ExportRequest
    models = kind_models()
    for part in location[:-1]:
        if part == "output":
            model = Output
        model = models.get(str(part), model)
    return [field.alias or name for name, field in model.model_fields.items()]
