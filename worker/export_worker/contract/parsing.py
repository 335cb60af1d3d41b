"""Parses a request, or reports each wrong field and what is allowed."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from export_worker.contract.batch import BatchOrder, BatchRequests
from export_worker.contract.kind_names import kind_names
from export_worker.contract.kind_union import OF_RECIPE
from export_worker.contract.model import FIELD_RULE, Model
from export_worker.contract.names import did_you_mean
from export_worker.contract.output import Output
from export_worker.contract.request import ExportRequest, kind_model, kind_models
from export_worker.contract.wording import plain_message, type_of
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.texts.decoding import decode_text

REQUEST_MAX_BYTES = 64 * 1024
"""Much more than 60 property names and 4 KiB of metadata need."""

BATCH_MAX_BYTES = 16 * 1024 * 1024
"""Of all requests of one batch: 10,000 requests of 1.6 KiB."""

PROBLEMS_MAX = 100
"""Reported of one request: a report of thousands of wrong fields would be many times as large as the request."""

Parsed = TypeVar("Parsed")

_AT_PLACE = re.compile(r"at line (\d+) column (\d+)")
_FORMATS = (
    (re.compile(r"\[+[A-Za-z][\w.-]*\]+$|[\w.-]+\s*=\s*[\"'\[{\d]"), "this looks like TOML; a request is JSON"),
    (re.compile(r"---|- |[\w.-]+:(\s|$)"), "this looks like YAML; a request is JSON"),
)
"""What a text looks like whose first line is not that of JSON."""
_MISTAKES = (
    (re.compile(r"//|/\*|#"), "JSON has no comments"),
    (re.compile(r"(True|False|None)\b"), "write true, false or null"),
    (re.compile("['\u2018\u2019\u201c\u201d\u201e]"), 'JSON needs double quotes (")'),
)
"""What usually is wrong with the text that the parser refuses."""


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
        return ExportRequest.model_validate_json(_in_utf8(data))
    except ValidationError as error:
        raise InvalidRequestError([_problem(detail) for detail in error.errors()[:PROBLEMS_MAX]]) from None


def parse_requests(body: bytes) -> list[ExportRequest]:
    """Parses the requests of a batch from a JSON array. Raises as `parse_batch` does."""
    return _of_many(body, TypeAdapter(BatchRequests).validate_json, ())


def parse_batch(body: bytes) -> BatchOrder:
    """Parses a batch from a JSON object with `batch` and `requests`.

    Raises:
        InvalidRequestError: The body is not JSON, or too large, or a field is wrong, such as `requests.3.connection`.
    """
    return _of_many(body, BatchOrder.model_validate_json, ("requests",))


def _of_many(body: bytes, validate: Callable[[bytes], Parsed], place: tuple[str, ...]) -> Parsed:
    """Args: place: Where the requests are in the body."""
    if len(body) > BATCH_MAX_BYTES:
        raise InvalidRequestError([FieldProblem("request", f"must have at most {BATCH_MAX_BYTES} bytes")])
    try:
        return validate(_in_utf8(body))
    except ValidationError as error:
        problems = [_problem_of_many(detail, place) for detail in error.errors()[:PROBLEMS_MAX]]
        raise InvalidRequestError(problems) from None


def _problem_of_many(detail: ErrorDetails, place: tuple[str, ...]) -> FieldProblem:
    location, known = detail["loc"], BatchOrder.model_fields
    if len(location) > len(place) and location[: len(place)] == place and isinstance(location[len(place)], int):
        within = _problem({**detail, "loc": location[len(place) + 1 :]})
        path = ["requests", str(location[len(place)]), *([] if within.field == "request" else [within.field])]
        return FieldProblem(".".join(path), within.message)
    if detail["type"] == "extra_forbidden":
        message = f"unknown field{did_you_mean(str(location[0]), known)}; allowed here: {', '.join(known)}"
        return FieldProblem(str(location[0]), message)
    if location or place or detail["type"] == "json_invalid":
        return _problem(detail)
    return FieldProblem("requests", plain_message(detail, table="a JSON object"))


def _in_utf8(data: bytes) -> bytes:
    """Returns JSON in UTF-8 without a byte order mark. PowerShell and Notepad write it in other ways."""
    try:
        return decode_text(data).encode(errors="surrogatepass")
    except ValueError as error:
        raise InvalidRequestError([FieldProblem("request", f"is not JSON: it {error}")]) from None


def _problem(detail: ErrorDetails) -> FieldProblem:
    location, kinds = detail["loc"], kind_names()
    if detail["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        if not isinstance(detail["input"], Mapping):
            return FieldProblem("export", f"must be a JSON object, not {type_of(detail['input'])}")
        tag = detail.get("ctx", {}).get("tag", "")
        return FieldProblem("export.kind", f"must be one of {', '.join(kinds)}{did_you_mean(tag, kinds)}")
    path = [str(part) for part in location if part not in (*kinds, OF_RECIPE)]
    if detail["type"] == FIELD_RULE:
        path.append(detail["ctx"]["field"])
    return FieldProblem(".".join(path) or "request", _message(location, detail))


def _message(location: tuple[int | str, ...], detail: ErrorDetails) -> str:
    context: dict[str, Any] = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            allowed, name = _allowed(location), str(location[-1])
            meant = _other_place(name) if len(location) == 1 else ""
            return f"unknown field{meant or did_you_mean(name, allowed)}; allowed here: {', '.join(allowed)}"
        case _ if detail["type"] == FIELD_RULE:
            return str(context["rule"])
        case "json_invalid":
            return f"is not JSON ({context['error']}){_json_hint(context['error'], detail['input'])}"
        case _:
            return plain_message(detail, table="a JSON object")


def _other_place(name: str) -> str:
    """Returns where a field belongs that stands beside `export` and `output`, and not in them."""
    places: dict[str, list[type[Model]]] = {"output": [Output], "export": list(kind_models().values())}
    found = [place for place, models in places.items() if any(name in _names(model) for model in models)]
    return f"; it belongs into {' or '.join(found)}" if found else ""


def _names(model: type[Model]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _json_hint(error: str, body: bytes) -> str:
    """Returns what usually causes an error of the JSON parser."""
    lines = body.splitlines()
    first = next((line for line in map(bytes.strip, lines) if line and not line.startswith(b"#")), b"")
    at = _AT_PLACE.search(error)
    refused = lines[int(at[1]) - 1][max(0, int(at[2]) - 1) :] if at and int(at[1]) <= len(lines) else b""
    pairs = [(pattern, first, hint) for pattern, hint in _FORMATS] + [
        (pattern, refused, hint) for pattern, hint in _MISTAKES
    ]
    hints = [hint for pattern, text, hint in pairs if pattern.match(text.decode(errors="replace"))]
    if error.startswith("EOF while parsing"):
        hints.append("it ends too early" if first else "it is empty")
    return f"; {hints[0]}" if hints else ""


def _allowed(location: tuple[int | str, ...]) -> list[str]:
    """Returns the fields of the model that has the unknown field."""
    model: type[Model] = ExportRequest
    for part in location[:-1]:
        model = Output if part == "output" else kind_model(str(part)) or model
    return _names(model)
