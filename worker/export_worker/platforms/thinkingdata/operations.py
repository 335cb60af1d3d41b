"""Every other call of ThinkingData's user cluster and tag API, with the limits that its document names."""

import json
from collections.abc import Mapping
from typing import Any

from export_worker.platforms.operations import Operation, Parameter, ParameterType, Place

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
"""There is no `tag_by_result`."""

NAME_MAX_CHARS = 24
DISPLAY_NAME_MAX_CHARS = 50
NAME_PATTERN = "[A-Za-z0-9_]+"
"""The document says letters and digits; the names in its own samples have underscores, too."""


def _project(place: Place = "query") -> Parameter:
    return Parameter("projectId", "integer", place, required=True, about="the project")


def _id(*, required: bool = True) -> Parameter:
    return Parameter("clusterId", "integer", "query", required=required, about="the cluster or tag, by id")


def _name(*, required: bool = True) -> Parameter:
    return Parameter("clusterName", "text", "query", required=required, about="the cluster or tag, by name")


def _new_name(place: Place, *, required: bool) -> Parameter:
    return Parameter(
        "clusterName",
        "text",
        place,
        required=required,
        max_chars=NAME_MAX_CHARS,
        pattern=NAME_PATTERN,
        about="name of the new cluster or tag",
    )


def _display_name(place: Place, *, required: bool) -> Parameter:
    return Parameter(
        "displayName", "text", place, required=required, max_chars=DISPLAY_NAME_MAX_CHARS, about="name that is shown"
    )


def _main_column(*, required: bool) -> Parameter:
    return Parameter("mainColumnName", "text", "query", required=required, about="what the ids are, e.g. #account_id")


_REMARKS = Parameter("remarks", "text", "query", about="a note")


def _catalog(place: Place, *, required: bool = False) -> Parameter:
    return Parameter("clusterCatalog", "text", place, required=required, choices=CATALOGS, about="cluster or tag")


def _json(name: str, kind: ParameterType, about: str, choices: tuple[str, ...] = ()) -> Parameter:
    return Parameter(name, kind, "json", choices=choices, about=about)


_DEFINITION = (
    _catalog("json"),
    _json("clusterType", "text", "how it is made", CLUSTER_TYPES + TAG_TYPES),
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
        # Optional by the table, which cannot be meant: nothing else in the call says which one to change.
        (_id(), _project("json"), _new_name("json", required=False), *_DEFINITION),
        body="json",
        aliases=("update",),
    ),
    Operation(
        "user-cluster-update-by-name",
        "POST",
        "/open/user-cluster-update-by-name",
        "change the definition of a cluster or tag, by name",
        # The project travels twice, as in the document's sample; the table's clusterId is a slip.
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
            _json("pagerHeader", "object", "pageNum from 1, and pageSize"),
        ),
        body="json",
        aliases=("list",),
    ),
    Operation(
        "user-cluster-refresh",
        "POST",
        "/open/user-cluster-refresh",
        "compute a cluster or tag anew",
        (_project(), _id()),
        aliases=("refresh",),
    ),
    Operation(
        "user-cluster-refresh-by-name",
        "POST",
        "/open/user-cluster-refresh-by-name",
        "compute a cluster or tag anew, by name",
        (_project(), _name()),
        aliases=("refresh-by-name",),
    ),
    Operation(
        "user-cluster-refresh-progress",
        "GET",
        "/open/user-cluster-refresh-progress",
        "show how far a refresh is",
        (_project(), _id()),
        aliases=("progress",),
    ),
    Operation(
        "user-cluster-refresh-progress-by-name",
        "GET",
        "/open/user-cluster-refresh-progress-by-name",
        "show how far a refresh is, by name",
        (_project(), _name()),
        aliases=("progress-by-name",),
    ),
    Operation(
        "import-id-cluster-add",
        "POST",
        "/open/import-id-cluster-add",
        "make a cluster or tag of uploaded ids, one a line",
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
        # The table demands clusterName as well; the document's own call and its trace do without.
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
    ),
    Operation(
        "import-id-cluster-modify-by-name",
        "POST",
        "/open/import-id-cluster-modify-by-name",
        "replace the uploaded ids of a cluster or tag, by name",
        (_project(), _name(), _display_name("query", required=False), _main_column(required=False), _REMARKS),
        body="csv",
        aliases=("upload-modify-by-name",),
    ),
)

OPERATIONS: Mapping[str, Operation] = {operation.name: operation for operation in _TABLE}


def request_parts(operation: Operation, arguments: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any] | None]:
    """The query string and the JSON body of a call; what no parameter names belongs to the body.

    Returns:
        The body is None for an operation that takes no JSON.
    """
    query = {name: _as_text(arguments[name]) for name in _names(operation, "query") if name in arguments}
    if operation.body != "json":
        return query, None
    elsewhere = set(_names(operation, "query")) - set(_names(operation, "json"))
    return query, {name: value for name, value in arguments.items() if name not in elsewhere}


def _names(operation: Operation, place: Place) -> list[str]:
    return [parameter.name for parameter in operation.parameters if parameter.place == place]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
