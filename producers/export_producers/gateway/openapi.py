"""The OpenAPI 3.1 document, generated from the models of the API. Needs only pydantic."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from export_producers.choices import LANGUAGES, LIST_MAX, RESOURCES
from export_producers.gateway import act_documents, caller_documents
from export_producers.gateway.act_documents import ACTS, Act
from export_producers.gateway.schemas import (
    PROBLEM_TYPE,
    Cancelling,
    Deliveries,
    ExportPage,
    Health,
    Problem,
    RetryOrder,
    StatusEvent,
    Timeline,
)
from export_producers.reads.overview_document import Overview
from export_producers.reads.stats import DAYS_MAX
from export_producers.reads.stats_document import Stats
from export_producers.reasons import ExplanationDocument
from export_worker.contract.dry_run import DryRun
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Accepted, Phase, Status

Json = dict[str, Any]

KEY_MAX_CHARS = 255
"""Limit of an idempotency key, as the contract sets it."""

PROBLEMS = {
    400: "The request is not JSON, or a parameter or a header is invalid.",
    401: "The bearer key is missing or invalid.",
    403: "The caller has not the role or not the connection that the call needs, or a page of another site made it.",
    404: "The export, connection or resource does not exist.",
    409: "A request with the same idempotency key is in progress, or the export has not ended yet.",
    413: "The body is too large.",
    415: "The body must be application/json.",
    422: "A field is invalid, or the idempotency key belongs to another request.",
    429: "Too many requests with this key.",
    500: "The gateway failed unexpectedly.",
    501: "The gateway is installed without the packages that call platforms.",
    502: "The platform refuses the call, or its response is not usable.",
    503: "Redis or the platform is unreachable.",
}
TAGS = {
    "exports": "Request exports and follow them.",
    "catalog": "Find out what can be exported.",
    "overview": "Watch everything together.",
    "service": "Watch the gateway itself. These calls need no key.",
    **act_documents.TAGS,
    **caller_documents.TAGS,
}
TAG_OF = {
    "catalog": "catalog",
    "overview": "overview",
    "stats": "overview",
}
"""The tag of each operation that is not about exports."""
KEY = (
    "A key of the setting `gateway.api_keys` or of `gateway.keys`, which also has a role and connections. A gateway "
    "without keys listens only on a loopback address, and answers only requests whose `Host` is such an address."
)
DESCRIPTIONS = {
    "enqueue": "The request is validated first: an unknown field or a wrong value is refused with its name. With an "
    "idempotency key, the call can be repeated safely. A dry run also asks the platform for the names in the request.",
    "list": "The newest exports are first. To read on, send the cursor of a page, or follow its `Link`.",
    "status": "To follow an export, read its event stream, or ask again after the seconds of `Retry-After`.",
    "cancel": "An export can be cancelled in any phase. An export that has ended is not changed.",
    "retry": "Without a step, the export restarts from the step that failed. Its next end sends another event.",
    "events": "Server-sent events. The first has the current status, the next ones each changed status, and the stream "
    "ends after the terminal status.",
    "timeline": "Each entry has the time, the phase after it, and what happened.",
    "explain": "The reason is a code with arguments for programs, and a text for people. A retry is advised only if it "
    "can help.",
    "deliveries": "Each end of an export has one event, which every sink of its request gets.",
    "catalog": "Each item is as the platform returns it. The gateway needs the extra `worker` for this call.",
    "overview": "The gateway reads Redis for it once a second at most, so it may be requested often.",
    "stats": "Workers count an export in the write that ends it, so no export is missing and none counts twice.",
    "openapi": "The document describes the gateway that serves it, with the kinds of all installed packages.",
    "alive": "For liveness probes. The answer does not depend on Redis.",
    "ready": "For readiness probes. The gateway writes to Redis, and is not ready while it stops.",
    "metrics": "Counters and durations of requests, and whether Redis accepts writes.",
    **act_documents.DESCRIPTIONS,
    **caller_documents.DESCRIPTIONS,
}
"""What each operation does, beyond its summary."""
_ID = {
    "name": "export_id",
    "in": "path",
    "description": "The id of the export, as the answer to the request returns it.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9A-Za-z-]{1,64}$"},
}
_OBJECT = {"application/json": {"schema": {"type": "object"}}}
_SECONDS = {"description": "Seconds until the status may change.", "schema": {"type": "integer", "minimum": 1}}
_LOCATION = {"description": "The path of the export's status.", "schema": {"type": "string"}}


@cache
def document() -> Json:
    """Returns the document. It is cached, so callers must not modify it."""
    _, schemas = models_json_schema(
        [
            (ExportRequest, "validation"),
            (RetryOrder, "validation"),
            (Accepted, "serialization"),
            (Status, "serialization"),
            (ExportPage, "serialization"),
            (Cancelling, "serialization"),
            (Timeline, "serialization"),
            (ExplanationDocument, "serialization"),
            (Deliveries, "serialization"),
            (DryRun, "serialization"),
            (StatusEvent, "serialization"),
            (Overview, "serialization"),
            (Stats, "serialization"),
            (Problem, "serialization"),
            (Health, "serialization"),
            *((model, "validation") for model in act_documents.ORDERS),
            *((model, "serialization") for model in (*act_documents.ANSWERS, *caller_documents.ANSWERS)),
        ],
        ref_template="#/components/schemas/{model}",
    )
    # The status is read without the models of kinds, so its own schema names only the main fields of a request.
    for model in ("Status", "DryRun"):
        fields = schemas["$defs"][model]["properties"]
        described = {"description": fields["request"]["description"]}
        fields["request"] = described | {"$ref": "#/components/schemas/ExportRequest"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "export-worker",
            "version": version("export-worker"),
            "description": "Exports data from customer-data platforms to S3, and reports the status of each export.",
            "contact": {"name": "The operators of this gateway"},
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "The gateway that serves this document."}],
        "security": [{"key": []}, {}],
        "tags": [{"name": name, "description": about} for name, about in TAGS.items()],
        "paths": _paths(),
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": KEY}},
        },
    }


def _paths() -> Json:
    acts: Json = {}
    for act in (*ACTS, *caller_documents.CALLS):
        acts.setdefault(act.path, {})[act.method] = _act(act)
    return {
        **acts,
        "/v1/exports": {"post": _enqueue(), "get": _list()},
        "/v1/exports/{export_id}": {"get": _status()},
        "/v1/exports/{export_id}/cancel": {"post": _cancel()},
        "/v1/exports/{export_id}/retry": {"post": _retry()},
        "/v1/exports/{export_id}/events": {"get": _events()},
        "/v1/exports/{export_id}/timeline": {"get": _timeline()},
        "/v1/exports/{export_id}/explain": {"get": _explain()},
        "/v1/exports/{export_id}/deliveries": {"get": _deliveries()},
        "/v1/catalog/{connection}/{resource}": {"get": _catalog()},
        "/v1/overview": {"get": _overview()},
        "/v1/stats": {"get": _stats()},
        "/openapi.json": {"get": _open("openapi", "Get this document.", _OBJECT)},
        "/healthz": {"get": _open("alive", "Check whether the process runs.", _json("Health"))},
        "/readyz": {"get": _open("ready", "Check whether Redis is reachable.", _json("Health"), 503)},
        "/metrics": {
            "get": _open(
                "metrics",
                "Get the metrics in Prometheus's text format.",
                {"text/plain": {"schema": {"type": "string"}}},
            )
        },
    }


def _enqueue() -> Json:
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key with the same request returns the first export.",
        "schema": {"type": "string", "minLength": 1, "maxLength": KEY_MAX_CHARS, "pattern": "^[!-~]+$"},
    }
    accepted = _answer("Accepted. From now on, the export is not lost.", _json("Accepted"))
    accepted["headers"] = {"Location": _LOCATION, "Retry-After": _SECONDS}
    accepted["links"] = {
        name: {"operationId": name, "parameters": {"export_id": "$response.body#/export_id"}}
        for name in ("status", "cancel", "retry")
    }
    dry_run = _query(
        "dry_run",
        {"type": "string", "enum": ["0", "1", "false", "true"], "default": "0"},
        "With 1, nothing is enqueued: the answer says what would happen.",
    )
    answers = {
        202: accepted,
        200: _answer("The request is valid. It was a dry run, so nothing was enqueued.", _json("DryRun")),
    }
    return _operation("enqueue", "Request an export.", answers, (409, 413, 415, 422, 502), [key, dry_run]) | {
        "requestBody": {"required": True, "content": _json("ExportRequest")}
    }


def _list() -> Json:
    limits = {"type": "integer", "minimum": 1, "maximum": LIST_MAX, "default": 50}
    parameters = [
        _query("phase", {"type": "string", "enum": [phase.value for phase in Phase]}, "Only exports in this phase."),
        _query("limit", limits, "Maximum number of exports."),
        _query("cursor", {"type": "string", "maxLength": 200}, "The `next_cursor` of the previous page."),
    ]
    page = _answer("Exports, newest first. Exports accepted later do not shift the next pages.", _json("ExportPage"))
    page["headers"] = {"Link": {"description": 'The next page, as rel="next".', "schema": {"type": "string"}}}
    return _operation("list", "List exports.", {200: page}, (), parameters)


def _status() -> Json:
    answer = _answer("The status of the export.", _json("Status")) | {"headers": {"Retry-After": _SECONDS}}
    return _operation("status", "Get the status of an export.", {200: answer}, (404,), [_ID])


def _cancel() -> Json:
    answers = {
        202: _answer("Cancellation requested. A worker ends the export within seconds.", _json("Cancelling")),
        200: _answer("The export had already ended.", _json("Cancelling")),
    }
    return _operation("cancel", "Cancel an export.", answers, (404,), [_ID])


def _retry() -> Json:
    start = _query("from", {"type": "string", "enum": ["submit", "poll", "transfer"]}, "The step to restart from.")
    answer = _answer("Restarted.", _json("Status"))
    answer["headers"] = {"Location": _LOCATION, "Retry-After": _SECONDS}
    operation = _operation(
        "retry", "Restart an export that has ended.", {202: answer}, (404, 409, 413, 415, 422), [_ID, start]
    )
    return operation | {"requestBody": {"required": False, "content": _json("RetryOrder")}}


def _events() -> Json:
    last = {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The id of the last event that was received. If it is the current status, it is not sent again.",
        "schema": {"type": "string", "maxLength": 100, "pattern": "^[!-~]+$"},
    }
    stream = {"text/event-stream": {"schema": {"type": "array", "items": _ref("StatusEvent")}}}
    answers = {
        200: _answer("Server-sent events `status`, each with a status document as data.", stream),
        204: {"description": "The export has ended and the client has its last event. Do not reconnect."},
    }
    return _operation("events", "Follow an export until it ends.", answers, (404,), [_ID, last])


def _timeline() -> Json:
    answer = _answer("The transitions of the export.", _json("Timeline"))
    return _operation("timeline", "Get the transitions of an export.", {200: answer}, (404,), [_ID])


def _explain() -> Json:
    about = "The language of the texts. By default, the first one of `Accept-Language` that exists."
    language = _query("lang", {"type": "string", "enum": list(LANGUAGES)}, about)
    answer = _answer("The reason as a code, its arguments and a text.", _json("ExplanationDocument"))
    return _operation(
        "explain", "Explain why an export waits, or how it ended.", {200: answer}, (404,), [_ID, language]
    )


def _deliveries() -> Json:
    answer = _answer("The completion events of the export, with their sinks.", _json("Deliveries"))
    return _operation("deliveries", "Get the deliveries of an export.", {200: answer}, (404,), [_ID])


def _catalog() -> Json:
    parameters = [
        _segment("connection", {"type": "string"}, "The name of a connection in the configuration."),
        _segment("resource", {"type": "string", "enum": list(RESOURCES)}, "What to list."),
        _query("project", {"type": "string", "minLength": 1}, "The project, if the resource belongs to one."),
    ]
    items = {"application/json": {"schema": {"type": "array", "items": {"type": "object"}}}}
    answers = {200: _answer("The items that the platform has.", items)}
    return _operation("catalog", "List what can be exported.", answers, (404, 422, 501, 502), parameters)


def _overview() -> Json:
    answers = {200: _answer("The state at one moment.", _json("Overview"))}
    return _operation("overview", "Get the state of everything.", answers, (), [])


def _stats() -> Json:
    moment = {"type": "string", "format": "date-time"}
    parameters = [
        _query("connection", {"type": "string", "minLength": 1}, "Only exports of this connection."),
        _query("from", moment, f"A time in the first hour, at most {DAYS_MAX} days before `to`. Default: a day."),
        _query("to", moment, "A time in the last hour. By default now."),
        _query("step", {"type": "string", "enum": ["hour"]}, "The length of each period."),
    ]
    answers = {200: _answer("What ended in each hour.", _json("Stats"))}
    return _operation("stats", "Count the exports that ended, by hour.", answers, (), parameters)


def _act(act: Act) -> Json:
    answers = {status: _answer(about, _json(model.__name__)) for status, (about, model) in act.answers.items()}
    operation = _operation(act.name, act.about, answers, act.problems, act.all_parameters) | {"tags": [act.tag]}
    if act.order is None:
        return operation
    return operation | {"requestBody": {"required": act.order_required, "content": _json(act.order.__name__)}}


def _open(name: str, about: str, content: Json, *problems: int) -> Json:
    """Returns an operation that is open to every client: it needs no key and has no rate limit."""
    answers = {"200": _answer(about, content)} | _problems((*problems, 400, 500))
    return _named(name, "service", about) | {"security": [], "responses": answers}


def _operation(
    name: str, about: str, answers: Mapping[int, Json], problems: tuple[int, ...], parameters: list[Json]
) -> Json:
    responses = {str(status): answer for status, answer in answers.items()}
    responses |= _problems((*problems, 400, 401, 403, 429, 500, 503))
    tag = TAG_OF.get(name, "exports")
    return _named(name, tag, about) | {"parameters": parameters, "responses": responses}


def _named(name: str, tag: str, about: str) -> Json:
    return {"operationId": name, "tags": [tag], "summary": about, "description": DESCRIPTIONS[name]}


def _problems(statuses: tuple[int, ...]) -> Json:
    content = {PROBLEM_TYPE: {"schema": _ref("Problem")}}
    return {str(status): _answer(PROBLEMS[status], content) for status in sorted(set(statuses))}


def _answer(about: str, content: Json) -> Json:
    return {"description": about, "content": content}


def _segment(name: str, schema: Json, about: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": about}


def _query(name: str, schema: Json, about: str) -> Json:
    return {"name": name, "in": "query", "schema": schema, "description": about}


def _json(model: str) -> Json:
    return {"application/json": {"schema": _ref(model)}}


def _ref(model: str) -> Json:
    return {"$ref": f"#/components/schemas/{model}"}
