"""The OpenAPI 3.1 document, generated from the models of the API. Needs only pydantic."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from export_producers.choices import FILTER_MAX_CHARS, LANGUAGES, LIST_MAX, OPEN, RESOURCES, STATES
from export_producers.gateway.documents import act_documents, caller_documents, schedule_documents
from export_producers.gateway.documents.act_documents import ACTS, Act, path_parameter, query_parameter
from export_producers.gateway.documents.openapi_texts import DESCRIPTIONS, KEY, PROBLEMS, TAG_OF, TAGS
from export_producers.gateway.documents.schemas import (
    PROBLEM_TYPE,
    Cancelling,
    ChangedExports,
    ChangeEvent,
    Deliveries,
    ExportPage,
    Health,
    Problem,
    RetryOrder,
    Root,
    StatusEvent,
    Timeline,
)
from export_producers.identities import KEY_MAX_CHARS
from export_producers.moments import FORMS
from export_producers.queues.merging import CURSOR_MAX_CHARS
from export_producers.reads.failures_document import Failures
from export_producers.reads.overview_document import Overview
from export_producers.reads.stats import DAYS_MAX
from export_producers.reads.stats_document import Stats
from export_producers.reads.workers import Fleet
from export_producers.reasons import ExplanationDocument
from export_worker.contract.dry_run import DryRun
from export_worker.contract.request import ExportRequest, kind_models
from export_worker.contract.status import Accepted, Phase, Status

Json = dict[str, Any]

_STATE = (
    "Only open exports that wait for a slot of their connection (`waiting`), or that are on their platform for longer "
    "than 95 % of the last ones of their connection and kind were, `eta.p95` of their status, of 5 or more (`slow`)."
)
_ID = {
    "name": "export_id",
    "in": "path",
    "description": "The id of the export, as the answer to the request returns it.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9A-Za-z-]{1,64}$"},
}
_LAST_EVENT = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event that was received. What the client has already is not sent again.",
    "schema": {"type": "string", "maxLength": CURSOR_MAX_CHARS, "pattern": "^[!-~]+$"},
}
_OBJECT = {"application/json": {"schema": {"type": "object"}}}
_SECONDS = {"description": "Seconds until the status may change.", "schema": {"type": "integer", "minimum": 1}}
_LOCATION = {"description": "The path of the export's status.", "schema": {"type": "string"}}


ORDERS: tuple[type[BaseModel], ...] = (ExportRequest, RetryOrder, *act_documents.ORDERS, *schedule_documents.ORDERS)
"""The models of bodies."""
ANSWERS: tuple[type[BaseModel], ...] = (
    Accepted,
    Status,
    ExportPage,
    Failures,
    Cancelling,
    Timeline,
    ExplanationDocument,
    Deliveries,
    DryRun,
    StatusEvent,
    ChangeEvent,
    ChangedExports,
    Overview,
    Fleet,
    Stats,
    Problem,
    Health,
    Root,
    *act_documents.ANSWERS,
    *schedule_documents.ANSWERS,
    *caller_documents.ANSWERS,
)
"""The models of answers."""


def document() -> Json:
    """Returns the document, with all kinds that are known. It is cached, so callers must not modify it."""
    return _document(tuple(kind_models().values()))


@lru_cache(maxsize=4)
def _document(kinds: Sequence[type[BaseModel]]) -> Json:
    """Returns the document. Args: kinds: The models of all kinds; others make another document."""
    del kinds
    _, schemas = models_json_schema(
        [*((model, "validation") for model in ORDERS), *((model, "serialization") for model in ANSWERS)],
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
    for act in (*ACTS, *schedule_documents.CALLS, *caller_documents.CALLS):
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
        "/v1/failures": {"get": _failures()},
        "/v1/catalog/{connection}/{resource}": {"get": _catalog()},
        "/v1/overview": {"get": _overview()},
        "/v1/workers": {"get": _workers()},
        "/v1/stats": {"get": _stats()},
        "/v1/stream": {"get": _stream()},
        "/": {"get": _root()},
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
    dry_run = query_parameter(
        "dry_run",
        {"type": "string", "enum": ["0", "1", "false", "true"], "default": "0"},
        "With 1, nothing is enqueued: the answer says what would happen.",
        may_be_empty=False,
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
        *_filters(),
        query_parameter("limit", limits, "Maximum number of exports."),
        query_parameter(
            "cursor", {"type": "string", "maxLength": CURSOR_MAX_CHARS}, "The `next_cursor` of the previous page."
        ),
    ]
    page = _answer("Exports, newest first. Exports accepted later do not shift the next pages.", _json("ExportPage"))
    page["headers"] = {"Link": {"description": 'The next page, as rel="next".', "schema": {"type": "string"}}}
    return _operation("list", "List exports.", {200: page}, (), parameters)


def _failures() -> Json:
    parameters = [parameter for parameter in _filters() if parameter["name"] not in {"phase", "state"}]
    groups = _answer("The groups, the largest first.", _json("Failures"))
    return _operation("failures", "Group failed exports by cause.", {200: groups}, (), parameters)


def _filters() -> list[Json]:
    text = {"type": "string", "maxLength": FILTER_MAX_CHARS}
    phases = {"type": "string", "enum": [OPEN, *(phase.value for phase in Phase)]}
    search = "Only exports with this id (or its first 8 characters), idempotency key, operation id of the platform, "
    return [
        query_parameter("phase", phases, "Only exports in this phase. `open`: those that have not ended."),
        query_parameter("state", {"type": "string", "enum": list(STATES)}, _STATE),
        query_parameter("connection", text, "Only exports of this connection."),
        query_parameter("kind", text, "Only exports of this kind."),
        query_parameter("error", text, "Only exports that failed with this code."),
        query_parameter("requested_by", text, "Only exports that this caller requested."),
        query_parameter("since", text, f"Only exports accepted since {FORMS}."),
        query_parameter("until", text, f"Only exports accepted before {FORMS}."),
        query_parameter("q", text, search + "or `KEY=VALUE` of the metadata."),
    ]


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
    steps = {"type": "string", "enum": ["submit", "poll", "transfer"]}
    start = query_parameter("from", steps, "The step to restart from.", may_be_empty=False)
    answer = _answer("Restarted.", _json("Status"))
    answer["headers"] = {"Location": _LOCATION, "Retry-After": _SECONDS}
    operation = _operation(
        "retry", "Restart an export that has ended.", {202: answer}, (404, 409, 413, 415, 422), [_ID, start]
    )
    return operation | {"requestBody": {"required": False, "content": _json("RetryOrder")}}


def _events() -> Json:
    stream = {"text/event-stream": {"schema": {"type": "array", "items": _ref("StatusEvent")}}}
    answers = {
        200: _answer("Server-sent events `status`, each with a status document as data.", stream),
        204: {"description": "The export has ended and the client has its last event. Do not reconnect."},
    }
    return _operation("events", "Follow an export until it ends.", answers, (404,), [_ID, _LAST_EVENT])


def _timeline() -> Json:
    answer = _answer("The transitions of the export.", _json("Timeline"))
    return _operation("timeline", "Get the transitions of an export.", {200: answer}, (404,), [_ID])


def _explain() -> Json:
    about = "The language of the texts. By default, the first one of `Accept-Language` that exists."
    language = query_parameter("lang", {"type": "string", "enum": list(LANGUAGES)}, about)
    answer = _answer("The reason as a code, its arguments and a text.", _json("ExplanationDocument"))
    return _operation(
        "explain", "Explain why an export waits, or how it ended.", {200: answer}, (404,), [_ID, language]
    )


def _deliveries() -> Json:
    answer = _answer("The completion events of the export, with their sinks.", _json("Deliveries"))
    return _operation("deliveries", "Get the deliveries of an export.", {200: answer}, (404,), [_ID])


def _catalog() -> Json:
    parameters = [
        path_parameter("connection", {"type": "string"}, "The name of a connection in the configuration."),
        path_parameter("resource", {"type": "string", "enum": list(RESOURCES)}, "What to list."),
        query_parameter("project", {"type": "string", "minLength": 1}, "The project, if the resource belongs to one."),
    ]
    items = {"application/json": {"schema": {"type": "array", "items": {"type": "object"}}}}
    answers = {200: _answer("The items that the platform has.", items)}
    return _operation("catalog", "List what can be exported.", answers, (404, 422, 501, 502), parameters)


def _overview() -> Json:
    answers = {200: _answer("The state at one moment.", _json("Overview"))}
    return _operation("overview", "Get the state of everything.", answers, (), [])


def _workers() -> Json:
    answers = {200: _answer("The workers that run, and the queue.", _json("Fleet"))}
    return _operation("workers", "Get the workers and the queue.", answers, (), [])


def _stats() -> Json:
    text = {"type": "string"}
    parameters = [
        query_parameter("connection", {"type": "string", "minLength": 1}, "Only exports of this connection."),
        query_parameter(
            "from",
            text,
            f"{FORMS[0].upper()}{FORMS[1:]} in the first hour, at most {DAYS_MAX} days before `to`. Default: a day.",
        ),
        query_parameter("to", text, f"{FORMS[0].upper()}{FORMS[1:]} in the last hour. By default now."),
        query_parameter("step", {"type": "string", "enum": ["hour"]}, "The length of each period."),
    ]
    answers = {200: _answer("What ended in each hour.", _json("Stats"))}
    return _operation("stats", "Count the exports that ended, by hour.", answers, (), parameters)


def _stream() -> Json:
    topics = {"type": "string", "pattern": "^(overview|exports)(,(overview|exports))*$", "default": "overview,exports"}
    parameters = [
        query_parameter("topics", topics, "What to send."),
        query_parameter(
            "filter", {"type": "string"}, "Only exports that match, e.g. `connection=gio&phase=failed`, encoded."
        ),
        _LAST_EVENT,
    ]
    events = {"text/event-stream": {"schema": {"type": "array", "items": _ref("ChangeEvent")}}}
    answers = {200: _answer("Server-sent events, until the client disconnects.", events)}
    return _operation("stream", "Follow everything.", answers, (), parameters)


def _act(act: Act) -> Json:
    answers = {
        status: {"description": about} if model is None else _answer(about, _json(model.__name__))
        for status, (about, model) in act.answers.items()
    }
    operation = _operation(act.name, act.about, answers, act.problems, act.all_parameters) | {"tags": [act.tag]}
    if act.order is None:
        return operation
    return operation | {"requestBody": {"required": act.order_required, "content": _json(act.order.__name__)}}


def _open(name: str, about: str, content: Json, *problems: int) -> Json:
    """Returns an operation that is open to every client: it needs no key and has no rate limit."""
    answers = {"200": _answer(about, content)} | _problems((*problems, 400, 500))
    return _named(name, "service", about) | {"security": [], "responses": answers}


def _root() -> Json:
    document = _open("root", "Get the paths of what this gateway serves.", _json("Root"))
    location = _LOCATION | {"description": "The path of the console."}
    console = {"description": "The gateway serves the console.", "headers": {"Location": location}}
    return document | {"responses": {"302": console} | document["responses"]}


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


def _json(model: str) -> Json:
    return {"application/json": {"schema": _ref(model)}}


def _ref(model: str) -> Json:
    return {"$ref": f"#/components/schemas/{model}"}
