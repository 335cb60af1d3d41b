"""The calls of GrowingIO's GraphQL documents beside exports: listings, single users, and the state of any job.

Names are those of the GraphQL fields. Mutations that start a job are not in the table: they are kinds of export.
"""

from export_worker.platforms.growingio.queries import (
    DATA_CENTER_TAGS,
    DATA_CENTER_USER_PROFILE,
    EVENT_ANALYSES,
    FREQUENCY_ANALYSES,
    FUNNEL_ANALYSES,
    JOB_RESULT,
    PROJECTS,
    RETENTION_ANALYSES,
    SEGMENTS,
    TAGS,
    USER_PROFILE,
)
from export_worker.platforms.http.graphql import Document
from export_worker.platforms.operations import Operation, Parameter

_HASH_ID = r"[A-Za-z0-9]{8}"
_ID_FORM = "8 letters or digits, such as WlGk4Daj"
_PROJECT = Parameter(
    "projectId", "text", "variables", required=True, pattern=_HASH_ID, form=_ID_FORM, about="the project's id"
)
_TAGS = Parameter("tags", "list", "variables", pattern=_HASH_ID, form=_ID_FORM, about="ids of tags")
_PROPERTIES = Parameter("properties", "list", "variables", about="keys of user properties")


def _query(document: Document, alias: str, about: str, *parameters: Parameter) -> Operation:
    aliases = (alias,) if alias != document.field else ()
    return Operation(document.field, "POST", "/graphql", about, parameters, aliases=aliases)


_USER_PROFILE = Operation(
    USER_PROFILE.field,
    "POST",
    "/graphql",
    "tags and properties of one user in one project",
    (_PROJECT, Parameter("userId", "text", "variables", about="the user's own id"), _TAGS, _PROPERTIES),
    aliases=("user-profile",),
    any_of=(("tags", "properties"),),
)

_CALLS: tuple[tuple[Document, Operation], ...] = (
    (PROJECTS, _query(PROJECTS, "projects", "all projects")),
    (DATA_CENTER_TAGS, _query(DATA_CENTER_TAGS, "data-center-tags", "tags of all projects")),
    (TAGS, _query(TAGS, "tags", "tags of one project", _PROJECT)),
    (SEGMENTS, _query(SEGMENTS, "segments", "segments of one project", _PROJECT)),
    (FUNNEL_ANALYSES, _query(FUNNEL_ANALYSES, "funnels", "funnel analyses of one project", _PROJECT)),
    (EVENT_ANALYSES, _query(EVENT_ANALYSES, "events", "event analyses of one project", _PROJECT)),
    (RETENTION_ANALYSES, _query(RETENTION_ANALYSES, "retentions", "retention analyses of one project", _PROJECT)),
    (FREQUENCY_ANALYSES, _query(FREQUENCY_ANALYSES, "frequencies", "frequency analyses of one project", _PROJECT)),
    (USER_PROFILE, _USER_PROFILE),
    (
        DATA_CENTER_USER_PROFILE,
        _query(
            DATA_CENTER_USER_PROFILE,
            "data-center-user-profile",
            "tags and properties of one user over all projects",
            Parameter("userId", "text", "variables", required=True, about="the user's own id"),
            _TAGS,
            _PROPERTIES,
        ),
    ),
    (
        JOB_RESULT,
        _query(
            JOB_RESULT,
            "job-result",
            "state of any export job",
            Parameter("id", "text", "variables", required=True, max_chars=4096, about="the id that submit returned"),
        ),
    ),
)

OPERATIONS: dict[str, Operation] = {operation.name: operation for _, operation in _CALLS}

DOCUMENT_OF: dict[str, Document] = {operation.name: document for document, operation in _CALLS}
"""What is sent for an operation: its arguments are the document's variables."""
