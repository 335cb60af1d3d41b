"""The texts of the OpenAPI document."""

from export_producers.gateway.documents import act_documents, caller_documents, schedule_documents

PROBLEMS = {
    400: "The request is not JSON, or a parameter or a header is invalid.",
    401: "The bearer key is missing or invalid.",
    403: "The caller has not the role or not the connection that the call needs, or a page of another site made it.",
    404: "The export, connection, resource or run does not exist.",
    409: "A request with the same idempotency key is in progress, the export has not ended yet, or more "
    "exports match than expected.",
    413: "The body is too large.",
    415: "The body must be application/json.",
    422: "A field is invalid, or the idempotency key belongs to another request.",
    429: "Too many requests with this key, or too many wrong keys from this address.",
    500: "The gateway failed unexpectedly.",
    501: "The gateway is installed without the packages that call platforms, or its configuration has no such trigger.",
    502: "The platform refuses the call, or its response is not usable.",
    503: "Redis or the platform is unreachable.",
}
TAGS = {
    "exports": "Request exports and follow them.",
    "catalog": "Find out what can be exported.",
    "overview": "Watch everything together.",
    "service": "Watch the gateway itself. These calls need no key.",
    **act_documents.TAGS,
    **schedule_documents.TAGS,
    **caller_documents.TAGS,
}
TAG_OF = {
    "catalog": "catalog",
    "overview": "overview",
    "workers": "overview",
    "stats": "overview",
    "stream": "overview",
}
"""The tag of each operation that is not about exports."""
KEY = (
    "A key of the setting `gateway.api_keys` or of `gateway.keys`, which also has a role and connections. A gateway "
    "without keys listens only on a loopback address, and answers only requests whose `Host` is such an address."
)
DESCRIPTIONS = {
    "enqueue": "The request is validated first: an unknown field or a wrong value is refused with its name. With an "
    "idempotency key, the call can be repeated safely. A dry run also asks the platform for the names in the request.",
    "list": "The newest exports are first. To read on, send the cursor of a page, or follow its `Link`. A page with "
    "several filters, or with `q`, can have fewer exports than `limit` and still have a cursor.",
    "failures": "At most the newest 5,000 failed exports are read, by default those accepted in the last 24 hours. A "
    "cause has the connection, kind, step, error code, and the message without ids, numbers and names.",
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
    "workers": "Each worker reports every two seconds which steps it runs. A caller that is limited to some "
    "connections sees only steps of their exports.",
    "stats": "Workers count an export in the write that ends it, so no export is missing and none counts twice.",
    "stream": "One stream for everything that a page shows. A gateway reads Redis once for all of its streams. An "
    "`export` event is sent four times a second at most, with the last change of each export. After a `reset`, read "
    "again.",
    "openapi": "The document describes the gateway that serves it, with the kinds of all installed packages.",
    "root": "Needs no key. With the console, the response is a redirect to it; else it has the paths.",
    "alive": "For liveness probes. The answer does not depend on Redis.",
    "ready": "For readiness probes. The gateway writes to Redis, and is not ready while it stops.",
    "metrics": "Counters and durations of requests, and whether Redis accepts writes.",
    **act_documents.DESCRIPTIONS,
    **schedule_documents.DESCRIPTIONS,
    **caller_documents.DESCRIPTIONS,
}
"""What each operation does, beyond its summary."""
