"""The calls of GrowingIO's REST API: all calls that its document and the related pages describe."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from export_worker.contract.field_types import PATH_TEXT_PATTERN
from export_worker.contract.request import PROPERTIES_MAX
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.platforms.http.client import CALL_TIMEOUT_S, SUBMIT_TIMEOUT_S, Call
from export_worker.platforms.operations import Operation, Parameter, ParameterLocation

PAGE_MAX = 1000
"""Largest number of items on one page, in every listing of the platform."""
_PROPERTIES_OF_A_PAGE_MAX = 20
"""A listing with more properties fails on the platform; an export may have 60."""


_PATH_FORM = "text without spaces, control characters and / \\ ? # %, and without a dot at the beginning"


def _in_path(name: str, about: str) -> Parameter:
    return Parameter(name, "text", "path", required=True, pattern=PATH_TEXT_PATTERN, form=_PATH_FORM, about=about)


_PROJECT = _in_path("project_ID", "the project")
_SEGMENT = _in_path("segment_key", "the segment profile's key")
_TAG = _in_path("tag_key", "the tag's key")
_JOB = _in_path("id", "the job, by the id that export_jobs returned")

_PAGE = (
    Parameter("limit", "integer", "query", maximum=PAGE_MAX, about="items on the page, default 1000"),
    Parameter("offset", "integer", "query", about="items before the page, default 0"),
)
_PAGE_OF_USERS = (
    *_PAGE,
    Parameter(
        "properties[]",
        "list",
        "query",
        max_items=_PROPERTIES_OF_A_PAGE_MAX,
        about="keys of identities, user properties and tags",
    ),
)
_FILE = (
    Parameter(
        "properties", "list", "json", max_items=PROPERTIES_MAX, about="keys of identities, user properties and tags"
    ),
    Parameter("fileFormat", "text", "json", choices=("csv", "json"), about="default csv"),
    Parameter("csvHeaderType", "text", "json", choices=("key", "name"), about="default key; for csv only"),
)

_API = "/v1/api"
_OF_PROJECT = f"{_API}/projects/{{project_ID}}"
_SEGMENTS = f"{_OF_PROJECT}/segment_profiles"
_TAGS = f"{_OF_PROJECT}/user_tags"
_ALL_TAGS = f"{_API}/user_tags"

PROJECTS = Operation("projects", "GET", f"{_API}/projects", "the projects that the token can access")
SEGMENT_PROFILES = Operation(
    "segment_profiles", "GET", _SEGMENTS, "a project's segment profiles, one page", (_PROJECT, *_PAGE)
)
USER_TAGS = Operation("user_tags", "GET", _TAGS, "a project's tags, one page", (_PROJECT, *_PAGE))
DC_USER_TAGS = Operation("dc_user_tags", "GET", _ALL_TAGS, "the data centre's tags, one page", _PAGE)
EXPORT_SEGMENT = Operation(
    "segment_profile_export_jobs",
    "POST",
    f"{_SEGMENTS}/{{segment_key}}/export_jobs",
    "start an export of a segment profile's users",
    (_PROJECT, _SEGMENT, *_FILE),
    body="json",
    aliases=("export_jobs",),
)
EXPORT_TAG = Operation(
    "user_tag_export_jobs",
    "POST",
    f"{_TAGS}/{{tag_key}}/export_jobs",
    "start an export of a tag's users in one project",
    (_PROJECT, _TAG, *_FILE),
    body="json",
)
EXPORT_DC_TAG = Operation(
    "dc_user_tag_export_jobs",
    "POST",
    f"{_ALL_TAGS}/{{tag_key}}/export_jobs",
    "start an export of a tag's users in the data centre",
    (_TAG, *_FILE),
    body="json",
)
USER_TAG_USERS = Operation(
    "user_tag_users",
    "GET",
    f"{_TAGS}/{{tag_key}}/users",
    "a tag's users in one project, one page",
    (_PROJECT, _TAG, *_PAGE_OF_USERS),
)
COMPUTE_TAG = Operation(
    "user_tag_computes",
    "POST",
    f"{_TAGS}/{{tag_key}}/computes",
    "recompute a tag, unless it is being computed",
    (_PROJECT, _TAG),
)


def _beside_spaces(operation: Operation) -> Operation:
    """Returns the same call for a tag of the project itself, which version 4.x has beside the tags of its spaces."""
    return replace(operation, name=f"project_{operation.name}", about=f"{operation.about}; never one of a space")


PROJECT_USER_TAGS = _beside_spaces(USER_TAGS)
EXPORT_PROJECT_TAG = _beside_spaces(EXPORT_TAG)
_BESIDE_SPACES = (
    PROJECT_USER_TAGS,
    EXPORT_PROJECT_TAG,
    _beside_spaces(USER_TAG_USERS),
    _beside_spaces(COMPUTE_TAG),
)

OPERATIONS: Mapping[str, Operation] = {
    operation.name: operation
    for operation in (
        PROJECTS,
        SEGMENT_PROFILES,
        USER_TAGS,
        DC_USER_TAGS,
        Operation(
            "segment_profile_users",
            "GET",
            f"{_SEGMENTS}/{{segment_key}}/users",
            "a segment profile's users, one page",
            (_PROJECT, _SEGMENT, *_PAGE_OF_USERS),
        ),
        USER_TAG_USERS,
        Operation(
            "dc_user_tag_users",
            "GET",
            f"{_ALL_TAGS}/{{tag_key}}/users",
            "a tag's users in the data centre, one page",
            (_TAG, *_PAGE_OF_USERS),
        ),
        Operation(
            "segment_profile_computes",
            "POST",
            f"{_SEGMENTS}/{{segment_key}}/computes",
            "recompute a segment profile, unless it is being computed",
            (_PROJECT, _SEGMENT),
        ),
        COMPUTE_TAG,
        EXPORT_SEGMENT,
        EXPORT_TAG,
        EXPORT_DC_TAG,
        *_BESIDE_SPACES,
        Operation(
            "job_result",
            "GET",
            f"{_API}/job/result/{{id}}",
            "state and files of a job",
            (_JOB,),
            aliases=("result",),
        ),
        Operation(
            "project_job_result",
            "GET",
            f"{_OF_PROJECT}/job/result/{{id}}",
            "like job_result, with the path of version 4.x",
            (_PROJECT, _JOB),
        ),
    )
}


def call_of(operation: Operation, arguments: Mapping[str, Any], space_id: str | None = None) -> Call:
    """Returns the call for an operation with the arguments that are given.

    Args:
        operation: An operation of the table.
        arguments: Values by parameter name.
        space_id: Added to the paths of a project's segment profiles and tags.

    Raises:
        InvalidRequestError: An argument exceeds a limit of the platform.
    """
    _check_limits(operation, arguments)
    path = operation.path
    if space_id is not None and path.startswith((_SEGMENTS, _TAGS)) and operation not in _BESIDE_SPACES:
        path = path.replace(_OF_PROJECT, f"{_OF_PROJECT}/spaces/{space_id}")
    for name, value in _arguments_in(operation, arguments, "path").items():
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    has_body = any(parameter.location == "json" for parameter in operation.parameters)
    return Call(
        operation.method,
        path,
        query={name: _query(value) for name, value in _arguments_in(operation, arguments, "query").items()},
        json=_arguments_in(operation, arguments, "json") if has_body else None,
        # Every POST of this API starts a job or a computation.
        timeout_s=SUBMIT_TIMEOUT_S if operation.method == "POST" else CALL_TIMEOUT_S,
    )


def _check_limits(operation: Operation, arguments: Mapping[str, Any]) -> None:
    problems = []
    for parameter in operation.parameters:
        value = arguments.get(parameter.name)
        if parameter.maximum is not None and value is not None and value > parameter.maximum:
            problems.append(FieldProblem(parameter.name, f"must be at most {parameter.maximum}"))
        if parameter.max_items is not None and value is not None and len(value) > parameter.max_items:
            problems.append(FieldProblem(parameter.name, f"must have at most {parameter.max_items} items"))
    if problems:
        raise InvalidRequestError(problems)


def _arguments_in(operation: Operation, arguments: Mapping[str, Any], location: ParameterLocation) -> dict[str, Any]:
    """Returns the given arguments of one location, in the table's order."""
    names = [parameter.name for parameter in operation.parameters if parameter.location == location]
    return {name: arguments[name] for name in names if arguments.get(name) is not None}


def _query(value: Any) -> str | list[str]:
    return [str(item) for item in value] if isinstance(value, list) else str(value)
