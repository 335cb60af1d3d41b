"""The calls of Horizon, the current OpenAPI of Sensors Data, for segments and tags.

Paths and parameters are those of the vendor's OpenAPI documents of Horizon 1.3.7; see `horizon_api`. All calls are
POSTs with a JSON body.
"""

from collections.abc import Mapping

from export_worker.platforms.operations import Operation, Parameter
from export_worker.platforms.sensorsdata.operations import SQL

HORIZON_PATH = "/v3/horizon/v1"

_ENTITY = Parameter("entity_name", "text", "json", about="default: entity_name of the connection")
_PROJECT = Parameter("project_id", "integer", "json", about="default: project_id of the connection")
_NAME = Parameter("name", "text", "json", required=True, about="name of the segment or tag")
_DELETED = Parameter("show_deleted", "boolean", "json", about="also what is in the recycle bin")
_INVISIBLE = Parameter("show_invisible", "boolean", "json", about="also what is not visible")
_PAGES = (
    Parameter("page", "integer", "json", about="from 1 on, or -1 for everything; default 1"),
    Parameter("page_size", "integer", "json", about="above 0; default 100"),
)
_BASE_TIMES = Parameter("base_time_list", "list", "json", about="base times, each like 2025-04-28T16:00:00Z")
_SPAN = (
    Parameter("start_time", "text", "json", about="first base time, like 2025-04-28T16:00:00Z"),
    Parameter("end_time", "text", "json", about="last base time"),
)
_LIMIT = Parameter("limit", "integer", "json", required=True, about="largest number of versions, newest first")
_SKIP_TRASH = Parameter("skip_trash", "boolean", "json", about="delete it without the recycle bin; default: false")
_PARENT = Parameter("destination_parent", "text", "json", about="the folder; default: the one before")
_FETCH_ALL = Parameter("fetch_all", "boolean", "json", about="all tasks of each base time; default: the last")
_CANCEL = (
    Parameter("task_ids", "list", "json", required=True, about="ids of tasks, as a JSON list of numbers"),
    Parameter("sync", "boolean", "json", about="wait for their end; default: false"),
    Parameter("sync_timeout_seconds", "integer", "json"),
)


def _horizon(path: str, alias: str, about: str, *parameters: Parameter, deletes: bool = False) -> Operation:
    """Returns a call whose parameters are known. Its alias is the name of the operation in the document."""
    name = path.replace("/", "-")
    return Operation(
        name, "POST", f"{HORIZON_PATH}/{path}", about, parameters, body="json", aliases=(alias,), deletes=deletes
    )


_CALLS = (
    _horizon(
        "segment/definition/list",
        "ListSegmentDefinitions",
        "list the segments, page by page",
        _ENTITY,
        *_PAGES,
        Parameter("segment_definition_names", "list", "json"),
        Parameter("segment_definition_fuzzy_name", "text", "json", about="a part of the name"),
        Parameter("has_valid_segment", "boolean", "json", about="only those that were computed"),
        Parameter("create_time_range", "object", "json", about="start_time and end_time"),
        _INVISIBLE,
        _DELETED,
    ),
    _horizon("segment/definition/get", "GetSegmentDefinition", "show one segment", _ENTITY, _NAME, _DELETED),
    _horizon("segment/definition/create-with-rule", "CreateSegmentDefinitionWithRule", "create a segment"),
    _horizon("segment/definition/update-with-rule", "UpdateSegmentDefinitionWithRule", "change a segment"),
    _horizon(
        "segment/definition/delete",
        "DeleteSegmentDefinition",
        "delete a segment",
        _ENTITY,
        _PROJECT,
        _NAME,
        _SKIP_TRASH,
        deletes=True,
    ),
    _horizon(
        "segment/definition/recover",
        "RecoverSegmentDefinition",
        "restore a deleted segment",
        _ENTITY,
        _PROJECT,
        _NAME,
    ),
    _horizon(
        "segment/definition/status/update",
        "UpdateSegmentSchedulerStatus",
        "start or stop the schedule of a segment",
        _ENTITY,
        _NAME,
        Parameter("status", "text", "json", required=True, choices=("ACTIVE", "SUSPENDED")),
    ),
    _horizon(
        "segment/definition/evaluate",
        "EvaluateSegment",
        "compute versions of segments",
        _ENTITY,
        Parameter("evaluate_params", "list", "json", required=True, about="segment_definition_name and base_time each"),
    ),
    _horizon(
        "segment/item/list",
        "ListSegmentItems",
        "list the computed versions of a segment, newest first",
        _ENTITY,
        Parameter("definition_name", "text", "json", required=True),
        Parameter("segment_ready", "boolean", "json", about="only those that succeeded, or only the others"),
        _BASE_TIMES,
        _LIMIT,
    ),
    _horizon(
        "segment/latest-item/get",
        "GetLastedSegmentItem",
        "show the newest version of segments",
        _ENTITY,
        Parameter("definition_names", "list", "json", required=True),
        Parameter("segment_ready", "boolean", "json", about="only those that succeeded, or only the others"),
    ),
    _horizon(
        "segment/task/get",
        "GetSegmentTask",
        "show the tasks that compute versions of a segment",
        _ENTITY,
        Parameter("definition_name", "text", "json", required=True),
        Parameter("base_time_list", "list", "json", required=True, about=_BASE_TIMES.about),
        _FETCH_ALL,
    ),
    _horizon("segment/task/cancel", "CancelSegmentTask", "cancel tasks of segments", *_CANCEL),
    _horizon(
        "tag/definition/list",
        "ListTagDefinitions",
        "list the tags, page by page",
        _ENTITY,
        _PROJECT,
        *_PAGES,
        Parameter("tag_names", "list", "json"),
        Parameter("create_types", "list", "json", about="how the tags were created, such as TAG_SQL"),
        Parameter("label_filters", "list", "json", about="label_name and label_values each"),
        _INVISIBLE,
        _DELETED,
    ),
    _horizon("tag/definition/get", "GetTagDefinition", "show one tag", _ENTITY, _PROJECT, _NAME, _DELETED),
    _horizon("tag/definition/create", "CreateTagDefinition", "create a tag"),
    _horizon("tag/definition/update", "UpdateTagDefinition", "change a tag"),
    _horizon("tag/definition/delete", "DeleteTagDefinition", "delete a tag", _ENTITY, _NAME, _SKIP_TRASH, deletes=True),
    _horizon("tag/definition/recover", "RecoverTagDefinition", "restore a deleted tag", _ENTITY, _NAME, _PARENT),
    _horizon("tag/definition/archive", "ArchiveTagDefinition", "archive a tag", _ENTITY, _NAME),
    _horizon(
        "tag/definition/recover-from-archive",
        "RecoverArchivedTagDefinition",
        "restore an archived tag",
        _ENTITY,
        _NAME,
        _PARENT,
    ),
    _horizon(
        "tag/definition/status/update",
        "UpdateTagSchedulerStatus",
        "start or stop the schedule of a tag",
        _ENTITY,
        Parameter("tag_name", "text", "json", required=True),
        Parameter("status", "text", "json", required=True, choices=("TAG_ACTIVE", "TAG_SUSPENDED")),
    ),
    _horizon(
        "tag/definition/evaluate",
        "EvaluateTag",
        "compute versions of tags",
        _ENTITY,
        Parameter("evaluate_params", "list", "json", required=True, about="tag_definition_name and base_time each"),
    ),
    _horizon(
        "tag/partition/get",
        "ListTagPartitions",
        "list the computed versions of a tag",
        _ENTITY,
        Parameter("tag_name", "text", "json", required=True),
        *_SPAN,
        _BASE_TIMES,
        _LIMIT,
    ),
    _horizon(
        "tag/latest-partition/get",
        "GetLastedTagPartition",
        "show the newest version of tags",
        _ENTITY,
        Parameter("tag_names", "list", "json", required=True),
        Parameter("status", "text", "json", about="TAG_PARTITION_AVAILABLE or TAG_PARTITION_UNAVAILABLE"),
    ),
    _horizon(
        "tag/task/get",
        "GetTagTask",
        "show the tasks that compute versions of a tag",
        _ENTITY,
        Parameter("tag_name", "text", "json", required=True),
        *_SPAN,
        _BASE_TIMES,
        _FETCH_ALL,
    ),
    _horizon("tag/task/cancel", "CancelTagTask", "cancel tasks of tags", *_CANCEL),
)
HORIZON_OPERATIONS: Mapping[str, Operation] = {item.name: item for item in (*_CALLS, SQL)}
