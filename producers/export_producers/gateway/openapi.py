"""The OpenAPI 3.1 document, from the models that the API reads and writes. Needs pydantic alone."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from export_producers.client import LIST_MAX
from export_producers.gateway.schemas import PROBLEM_TYPE, Cancelling, ExportPage, Health, Problem, RetryOrder
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Accepted, Phase, Status

Json = dict[str, Any]

RESOURCES = (
    "projects",
    "tags",
    "segments",
    "funnels",
    "events",
    "retentions",
    "frequencies",
    "clusters",
    "user-groups",
)
KEY_MAX = 255
"""Characters of an idempotency key."""

PROBLEMS = {
    400: "the request is no JSON, or a parameter or header is wrong",
    401: "the bearer key is missing or wrong",
    404: "there is no such export, connection or resource",
    409: "the same idempotency key is being worked on, or the export has not ended yet",
    413: "the body is too large",
    415: "the body must be application/json",
    422: "a field is wrong, or the idempotency key stands for another request",
    429: "too many requests with this key",
    500: "a defect of the gateway",
    501: "the gateway is installed without what asks platforms",
    502: "the platform refuses, or gives no usable answer",
    503: "Redis, or the platform, cannot be reached",
}
_ID = {
    "name": "export_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9A-Za-z-]{1,64}$"},
}
_OBJECT = {"application/json": {"schema": {"type": "object"}}}
_SECONDS = {"description": "Seconds until something may have changed.", "schema": {"type": "integer", "minimum": 1}}
_LOCATION = {"description": "Where the export is looked at.", "schema": {"type": "string"}}


@cache
def document() -> Json:
    """The whole document; not to be changed by whoever reads it."""
    _, schemas = models_json_schema(
        [
            (ExportRequest, "validation"),
            (RetryOrder, "validation"),
            (Accepted, "serialization"),
            (Status, "serialization"),
            (ExportPage, "serialization"),
            (Cancelling, "serialization"),
            (Problem, "serialization"),
            (Health, "serialization"),
        ],
        ref_template="#/components/schemas/{model}",
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "export-worker",
            "version": version("export-worker"),
            "description": "Asks for exports from customer-data platforms into S3, and follows them.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {}],
        "paths": _paths(),
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _paths() -> Json:
    return {
        "/v1/exports": {"post": _enqueue(), "get": _list()},
        "/v1/exports/{export_id}": {"get": _status()},
        "/v1/exports/{export_id}/cancel": {"post": _cancel()},
        "/v1/exports/{export_id}/retry": {"post": _retry()},
        "/v1/exports/{export_id}/events": {"get": _events()},
        "/v1/catalog/{connection}/{resource}": {"get": _catalog()},
        "/openapi.json": {"get": _open("openapi", "This document.", _OBJECT)},
        "/healthz": {"get": _open("alive", "Whether the process lives.", _json("Health"))},
        "/readyz": {"get": _open("ready", "Whether Redis can be reached.", _json("Health"), 503)},
        "/metrics": {
            "get": _open("metrics", "Prometheus's text format.", {"text/plain": {"schema": {"type": "string"}}})
        },
    }


def _enqueue() -> Json:
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key with the same request gives the first export back.",
        "schema": {"type": "string", "minLength": 1, "maxLength": KEY_MAX, "pattern": "^[!-~]+$"},
    }
    accepted = _answer("Accepted: once this is said, the export is not lost.", _json("Accepted"))
    accepted["headers"] = {"Location": _LOCATION, "Retry-After": _SECONDS}
    accepted["links"] = {
        name: {"operationId": name, "parameters": {"export_id": "$response.body#/export_id"}}
        for name in ("status", "cancel", "retry")
    }
    return _operation("enqueue", "Ask for an export.", {202: accepted}, (409, 413, 415, 422), [key]) | {
        "requestBody": {"required": True, "content": _json("ExportRequest")}
    }


def _list() -> Json:
    limits = {"type": "integer", "minimum": 1, "maximum": LIST_MAX, "default": 50}
    parameters = [
        _query("phase", {"type": "string", "enum": [phase.value for phase in Phase]}, "Only exports in this phase."),
        _query("limit", limits, "How many at most."),
        _query("cursor", {"type": "string", "maxLength": 200}, "`next_cursor` of the page before."),
    ]
    page = _answer("The newest first; what is accepted meanwhile moves nothing.", _json("ExportPage"))
    page["headers"] = {"Link": {"description": 'The next page, as rel="next".', "schema": {"type": "string"}}}
    return _operation("list", "List exports.", {200: page}, (), parameters)


def _status() -> Json:
    answer = _answer("Where it stands.", _json("Status")) | {"headers": {"Retry-After": _SECONDS}}
    return _operation("status", "Look at one export.", {200: answer}, (404,), [_ID])


def _cancel() -> Json:
    answers = {
        202: _answer("It ends as soon as whoever has it hears of it.", _json("Cancelling")),
        200: _answer("It had ended before.", _json("Cancelling")),
    }
    return _operation("cancel", "Ask for an export's end.", answers, (404,), [_ID])


def _retry() -> Json:
    start = _query("from", {"type": "string", "enum": ["submit", "poll", "transfer"]}, "Where it begins.")
    again = _answer("It goes on.", _json("Status"))
    again["headers"] = {"Location": _LOCATION, "Retry-After": _SECONDS}
    operation = _operation(
        "retry", "Set an ended export going again.", {202: again}, (404, 409, 413, 415, 422), [_ID, start]
    )
    return operation | {"requestBody": {"required": False, "content": _json("RetryOrder")}}


def _events() -> Json:
    last = {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "Of the last event that was received: only what is newer is sent.",
        "schema": {"type": "string", "maxLength": 100, "pattern": "^[!-~]+$"},
    }
    answers = {
        200: _answer("Server-sent events: `status`, with a status document as data.", {"text/event-stream": {}}),
        204: {"description": "It has ended, and its last event was received: do not come again."},
    }
    return _operation("events", "Follow an export to its end.", answers, (404,), [_ID, last])


def _catalog() -> Json:
    parameters = [
        {"name": "connection", "in": "path", "required": True, "schema": {"type": "string"}},
        {"name": "resource", "in": "path", "required": True, "schema": {"type": "string", "enum": list(RESOURCES)}},
        _query("project", {"type": "string", "minLength": 1}, "The platform's project, where it needs one."),
    ]
    items = {"application/json": {"schema": {"type": "array", "items": {"type": "object"}}}}
    answers = {200: _answer("What the platform has.", items)}
    return _operation("catalog", "List what can be exported.", answers, (404, 422, 501, 502), parameters)


def _open(name: str, about: str, content: Json, *problems: int) -> Json:
    """An operation that needs no key and has no rate."""
    answers = {"200": _answer(about, content)} | _problems((*problems, 500))
    return {"operationId": name, "summary": about, "security": [], "responses": answers}


def _operation(
    name: str, about: str, answers: Mapping[int, Json], problems: tuple[int, ...], parameters: list[Json]
) -> Json:
    told = {str(status): answer for status, answer in answers.items()}
    told |= _problems((*problems, 400, 401, 429, 500, 503))
    return {"operationId": name, "summary": about, "parameters": parameters, "responses": told}


def _problems(statuses: tuple[int, ...]) -> Json:
    content = {PROBLEM_TYPE: {"schema": _ref("Problem")}}
    return {str(status): _answer(PROBLEMS[status].capitalize() + ".", content) for status in sorted(set(statuses))}


def _answer(about: str, content: Json) -> Json:
    return {"description": about, "content": content}


def _query(name: str, schema: Json, about: str) -> Json:
    return {"name": name, "in": "query", "schema": schema, "description": about}


def _json(model: str) -> Json:
    return {"application/json": {"schema": _ref(model)}}


def _ref(model: str) -> Json:
    return {"$ref": f"#/components/schemas/{model}"}
