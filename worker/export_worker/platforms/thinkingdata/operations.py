"""The calls of ThinkingData's user cluster and tag API, with the limits that its document states."""

import json
from collections.abc import Mapping
from typing import Any

from export_worker.platforms.operations import Operation, Parameter, ParameterLocation, ParameterType

CATALOGS = ("catalog_cluster", "catalog_tag")
CLUSTER_TYPES = (
    "cluster_by_dynamic_condition",
    "cluster_by_static_condition",
    "cluster_by_result",
    "cluster_by_import",
    "cluster_by_dynamic_sql",
    "cluster_by_static_sql",
)
TAG_TYPES = (
    "tag_by_dynamic_condition",
    "tag_by_static_condition",
    "tag_by_import",
    "tag_by_dynamic_sql",
    "tag_by_static_sql",
)
"""The document lists no `tag_by_result`."""

NAME_MAX_CHARS = 24
DISPLAY_NAME_MAX_CHARS = 50
NAME_PATTERN = "[A-Za-z0-9_]+"
"""The document says letters and digits, but the names in its samples also contain underscores."""


def _project(location: ParameterLocation = "query") -> Parameter:
    return Parameter("projectId", "integer", location, required=True, about="the project")


def _id(*, required: bool = True) -> Parameter:
    return Parameter("clusterId", "integer", "query", required=required, about="the cluster or tag, by id")


def _name(*, required: bool = True) -> Parameter:
    return Parameter(
        "clusterName", "text", "query", required=required, trimmed=True, about="the cluster or tag, by name"
    )


def _new_name(location: ParameterLocation, *, required: bool) -> Parameter:
    return Parameter(
        "clusterName",
        "text",
        location,
        required=required,
        max_chars=NAME_MAX_CHARS,
        pattern=NAME_PATTERN,
        trimmed=True,
        form="letters, digits and _, such as buyers_2026",
        about="name of the new cluster or tag",
    )


def _display_name(location: ParameterLocation, *, required: bool) -> Parameter:
    return Parameter(
        "displayName", "text", location, required=required, max_chars=DISPLAY_NAME_MAX_CHARS, about="display name"
    )


def _main_column(*, required: bool) -> Parameter:
    return Parameter("mainColumnName", "text", "query", required=required, about="kind of the ids, e.g. #account_id")


_REMARKS = Parameter("remarks", "text", "query", about="a note")


def _catalog(location: ParameterLocation, *, required: bool = False) -> Parameter:
    return Parameter("clusterCatalog", "text", location, required=required, choices=CATALOGS, about="cluster or tag")


def _json(name: str, parameter_type: ParameterType, about: str, choices: tuple[str, ...] = ()) -> Parameter:
    return Parameter(name, parameter_type, "json", choices=choices, about=about)


_DEFINITION = (
    _catalog("json"),
    _json("clusterType", "text", "how its members are determined", CLUSTER_TYPES + TAG_TYPES),
    _display_name("json", required=True),
    _json("qp", "object", "definition of a cluster"),
    _json(
        "subConditionTabType",
        "text",
        "kind of a condition tag",
        ("tag_condition_default", "tag_condition_by_firstlast_event", "tag_condition_by_quotation"),
    ),
    _json("tagQp", "object", "definition of a tag"),
)

_TABLE = (
    Operation(
        "user-cluster-add",
        "POST",
        "/open/user-cluster-add",
        "add a cluster or tag by conditions",
        (_project("json"), _new_name("json", required=True), *_DEFINITION),
        body="json",
        aliases=("add",),
    ),
    Operation(
        "user-cluster-detail",
        "GET",
        "/open/user-cluster-detail",
        "show one cluster or tag",
        (_project(), _id(required=False), _name(required=False)),
        one_of=(("clusterId", "clusterName"),),
        aliases=("detail",),
    ),
    Operation(
        "user-cluster-update",
        "POST",
        "/open/user-cluster-update",
        "change the definition of a cluster or tag",
        # The document's table calls clusterId optional. That must be a mistake: nothing else identifies the cluster.
        (_id(), _project("json"), _new_name("json", required=False), *_DEFINITION),
        body="json",
        aliases=("update",),
    ),
    Operation(
        "user-cluster-update-by-name",
        "POST",
        "/open/user-cluster-update-by-name",
        "change the definition of a cluster or tag, by name",
        # The project is sent twice, as in the document's sample. The clusterId in its table must be a mistake.
        (_project(), _name(), _project("json"), *_DEFINITION),
        body="json",
        aliases=("update-by-name",),
    ),
    Operation(
        "user-cluster-delete",
        "POST",
        "/open/user-cluster-delete",
        "delete a cluster or tag",
        (_project(), _id()),
        aliases=("delete",),
        deletes=True,
    ),
    Operation(
        "delete-user-cluster-by-name",
        "POST",
        "/open/delete-user-cluster-by-name",
        "delete a cluster or tag, by name",
        (_project(), _name()),
        aliases=("delete-by-name",),
        deletes=True,
    ),
    Operation(
        "user-cluster-list",
        "POST",
        "/open/user-cluster-list",
        "list clusters or tags",
        (
            _project("json"),
            _catalog("json", required=True),
            Parameter("clusterTypes", "list", "json", required=True, choices=CLUSTER_TYPES + TAG_TYPES),
            _json("clusterName", "text", "part of the name"),
            _json("pagerHeader", "object", "pageNum (from 1) and pageSize"),
        ),
        body="json",
        aliases=("list",),
    ),
    Operation(
        "user-cluster-refresh",
        "POST",
        "/open/user-cluster-refresh",
        "recompute a cluster or tag",
        (_project(), _id()),
        aliases=("refresh",),
    ),
    Operation(
        "user-cluster-refresh-by-name",
        "POST",
        "/open/user-cluster-refresh-by-name",
        "recompute a cluster or tag, by name",
        (_project(), _name()),
        aliases=("refresh-by-name",),
    ),
    Operation(
        "user-cluster-refresh-progress",
        "GET",
        "/open/user-cluster-refresh-progress",
        "show the progress of a refresh",
        (_project(), _id()),
        aliases=("progress",),
    ),
    Operation(
        "user-cluster-refresh-progress-by-name",
        "GET",
        "/open/user-cluster-refresh-progress-by-name",
        "show the progress of a refresh, by name",
        (_project(), _name()),
        aliases=("progress-by-name",),
    ),
    Operation(
        "import-id-cluster-add",
        "POST",
        "/open/import-id-cluster-add",
        "create a cluster or tag from uploaded ids, one a line",
        (
            _project(),
            _display_name("query", required=True),
            _main_column(required=True),
            _catalog("query"),
            _new_name("query", required=False),
            _REMARKS,
        ),
        body="csv",
        aliases=("upload-add",),
    ),
    Operation(
        "import-id-cluster-modify",
        "POST",
        "/open/import-id-cluster-modify",
        "replace the uploaded ids of a cluster or tag",
        # The document's table requires clusterName, too. Its sample call and the recorded curl trace do not send it.
        (
            _project(),
            _id(),
            _name(required=False),
            _display_name("query", required=False),
            _main_column(required=False),
            _REMARKS,
        ),
        body="csv",
        aliases=("upload-modify",),
        replaces=True,
    ),
    Operation(
        "import-id-cluster-modify-by-name",
        "POST",
        "/open/import-id-cluster-modify-by-name",
        "replace the uploaded ids of a cluster or tag, by name",
        (_project(), _name(), _display_name("query", required=False), _main_column(required=False), _REMARKS),
        body="csv",
        aliases=("upload-modify-by-name",),
        replaces=True,
    ),
)

OPERATIONS: Mapping[str, Operation] = {operation.name: operation for operation in _TABLE}


def request_parts(operation: Operation, arguments: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any] | None]:
    """Returns the query string and the JSON body of a call.

    Arguments that no parameter names belong to the body. The body is None for an operation without a JSON body.
    """
    query = {name: _as_text(arguments[name]) for name in _names(operation, "query") if name in arguments}
    if operation.body != "json":
        return query, None
    only_query = set(_names(operation, "query")) - set(_names(operation, "json"))
    return query, {name: value for name, value in arguments.items() if name not in only_query}


def _names(operation: Operation, location: ParameterLocation) -> list[str]:
    return [parameter.name for parameter in operation.parameters if parameter.location == location]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
