"""GrowingIO's GraphQL schema and the resolvers of its fields."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

from graphql import GraphQLError, GraphQLSchema, build_schema

from export_worker.simulator.growingio.data import FILE_TITLES, PROJECTS, TAGS, USERS, AnalysisType, ProjectData
from export_worker.simulator.growingio.jobs import ERROR, FINISH, JobRequest, new_job
from export_worker.simulator.jobs import Job
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World

SDL = files("export_worker.simulator.growingio").joinpath("schema.graphql").read_text(encoding="utf-8")
"""Read at import time: a server must not read files in its event loop."""

UNKNOWN_STAGE = "TENCENT_PORTRAIT_RUNNING"
"""The schema allows only known stages. So an answer with an unknown stage is first created with this one, and the
stage is replaced afterwards."""

_USER_COLUMNS = ("用户ID", "姓名", "城市")
_ANALYSIS_COLUMNS = ("序号", "对比对象", "地域", "人数")

Resolver = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The context of one execution: the state of the simulator and the fault of the call."""

    world: World
    fault: Fault | None

    def has_fault(self, name: str) -> bool:
        """Returns whether the call has this fault."""
        return self.fault is not None and self.fault.fault == name


class _Info(Protocol):
    """The attributes of GraphQL's resolver info that the resolvers here use."""

    @property
    def context(self) -> RequestContext: ...

    @property
    def field_name(self) -> str: ...


@cache
def shared_schema() -> GraphQLSchema:
    """Returns the schema with its resolvers and a validated `HashId`. Execute it with a `RequestContext`.

    All simulators of a process share it: it has no state, and to build it takes much longer than to start a server.
    """
    schema = build_schema(SDL)
    for attribute in ("parse_value", "coerce_input_value"):  # graphql-core 3.2 calls the first, 3.3 the second
        setattr(schema.type_map["HashId"], attribute, _hash_id)
    _attach(schema.query_type, _QUERIES)
    _attach(schema.mutation_type, _MUTATIONS)
    return schema


def _attach(root: Any, resolvers: Mapping[str, Resolver]) -> None:
    for name, resolver in resolvers.items():
        root.fields[name].resolve = resolver


def _hash_id(value: Any) -> str:
    if not isinstance(value, str) or re.fullmatch(r"[A-Za-z0-9]{8}", value) is None:
        raise GraphQLError(f"HashId must be 8 letters or digits, not {value!r}")
    return value


def _not_found(what: str, name: str) -> GraphQLError:
    return GraphQLError(f"{what} {name} does not exist", extensions={"code": "NOT_FOUND"})


def _one(items: tuple[dict[str, Any], ...], what: str, value: str, field: str = "id") -> dict[str, Any]:
    for item in items:
        if item[field] == value:
            return item
    raise _not_found(what, value)


def _project(project_id: str) -> ProjectData:
    if project_id not in PROJECTS:
        raise _not_found("project", project_id)
    return PROJECTS[project_id]


def _analyses(analysis_type: AnalysisType) -> Resolver:
    return lambda _root, _info, **given: _project(given["projectId"]).analyses[analysis_type]


def _user_profile(_root: Any, _info: _Info, **given: Any) -> dict[str, Any] | None:
    if "projectId" in given:
        _project(given["projectId"])
    properties, tag_ids = given.get("properties") or [], given.get("tags") or []
    if not properties and not tag_ids:
        raise GraphQLError("at least one of tags and properties is needed")
    user_id = given.get("userId")
    if user_id not in USERS:
        return None
    keys = [*properties, *(_one(TAGS, "tag", tag_id)["key"] for tag_id in tag_ids)]
    known = USERS[user_id]
    return {
        "id": f"gio-{user_id}",
        "userId": user_id,
        "properties": [{"key": key, "name": known[key][0], "value": known[key][1]} for key in keys if key in known],
    }


def _job_result(_root: Any, info: _Info, **given: str) -> dict[str, Any] | None:
    context = info.context
    job = context.world.jobs.find(given["id"])
    if job is None or context.has_fault("null_job"):
        return None
    if context.has_fault("error_stage"):
        job.fail(ERROR)
    stage = context.world.stage(job)
    uris = [file.uri for file in job.files] if stage == FINISH else None
    if context.has_fault("unknown_stage"):
        stage, uris = UNKNOWN_STAGE, None
    elif context.has_fault("empty_uris"):
        uris = []
    return {"id": job.short_id, "stage": stage, "uris": uris}


def _submit_tag_by_id(_root: Any, info: _Info, **given: Any) -> dict[str, Any]:
    return _submit_tag(info, _one(TAGS, "tag", given["tagId"]), given, given)


def _submit_tag_by_key(_root: Any, info: _Info, **given: Any) -> dict[str, Any]:
    parameter = given["parameter"]
    return _submit_tag(info, _one(TAGS, "tag", parameter["tagKey"], "key"), given, parameter)


def _submit_tag(info: _Info, tag: dict[str, Any], given: dict[str, Any], parameter: dict[str, Any]) -> dict[str, Any]:
    job_request = JobRequest(
        kind="tag",
        subject=tag["id"],
        call=info.field_name,
        arguments=given,
        columns=(*_USER_COLUMNS, tag["name"], *(parameter.get("properties") or ())),
        charset=parameter.get("charset"),
        title=parameter.get("exportFileName"),
    )
    return _accept(info, job_request)


def _submit_segment(_root: Any, info: _Info, **given: Any) -> dict[str, Any]:
    """Resolves all three mutations. They differ only in the position of their arguments."""
    parameter = given.get("parameter", given)
    segment_id = parameter.get("segmentId") or parameter["id"]
    project = _project(given["projectId"])
    segment = _one(project.segments, "segment", segment_id)
    tags = [_one(project.tags, "tag", tag_id) for tag_id in parameter.get("tags") or ()]
    job_request = JobRequest(
        kind="segment",
        subject=segment["id"],
        call=info.field_name,
        arguments=given,
        columns=(*_USER_COLUMNS, *(tag["name"] for tag in tags), *(parameter.get("properties") or ())),
        charset=parameter.get("charset"),
        title=parameter.get("exportFileName") or "下载用户列表",
    )
    return _accept(info, job_request)


def _submit_analysis(_root: Any, info: _Info, **given: Any) -> dict[str, Any]:
    analysis_type: AnalysisType = given["param"]["analysisType"]
    analysis = _one(_project(given["projectId"]).analyses[analysis_type], f"{analysis_type} analysis", given["id"])
    job_request = JobRequest(
        kind="analysis",
        subject=analysis["id"],
        call=info.field_name,
        arguments=given,
        columns=_ANALYSIS_COLUMNS,
        charset=given.get("charset"),
        title=FILE_TITLES[analysis_type],
    )
    return _accept(info, job_request)


def _accept(info: _Info, job_request: JobRequest) -> dict[str, Any]:
    context = info.context
    job = new_job(context.world, job_request, context.fault)
    answer = _submitted(job)
    if context.has_fault("unknown_stage"):
        answer["stage"] = UNKNOWN_STAGE
    return answer


def _submitted(job: Job) -> dict[str, Any]:
    """Returns a submit's answer. It has the first stage, at whatever time it is created."""
    created_at = job.created_at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    stage = job.plan.stages[0]
    return {
        "id": job.job_id,
        "name": job.name,
        "stage": stage,
        "creatorId": "zqQRq3Do",
        "createdAt": created_at,
        "updaterId": "zqQRq3Do",
        "updatedAt": created_at,
        "creator": "admin",
        "updater": "admin",
        "error": _job_error(job, stage),
    }


def _job_error(job: Job, stage: str) -> dict[str, Any] | None:
    """Returns the error of a job. A finished analysis has one with an empty code, as on the platform."""
    if stage == ERROR:
        return {"code": "EXPORT_FAILED", "message": "导出失败"}
    if stage == FINISH and job.kind == "analysis":
        return {"code": "", "message": None}
    return None


_QUERIES: dict[str, Resolver] = {
    "projects": lambda _root, _info: [data.project for data in PROJECTS.values()],
    "project": lambda _root, _info, **given: _project(given["id"]).project,
    "dataCenterTags": lambda _root, _info: TAGS,
    "dataCenterTag": lambda _root, _info, **given: _one(TAGS, "tag", given["id"]),
    "tags": lambda _root, _info, **given: _project(given["projectId"]).tags,
    "tag": lambda _root, _info, **given: _one(_project(given["projectId"]).tags, "tag", given["id"]),
    "segments": lambda _root, _info, **given: _project(given["projectId"]).segments,
    "segment": lambda _root, _info, **given: _one(_project(given["projectId"]).segments, "segment", given["id"]),
    "eventAnalyses": _analyses("CHARTS"),
    "funnelAnalyses": _analyses("FUNNELS"),
    "retentionAnalyses": _analyses("RETENTIONS"),
    "frequencyAnalyses": _analyses("FREQUENCIES"),
    "userProfile": _user_profile,
    "dataCenterUserProfile": _user_profile,
    "jobResult": _job_result,
}

_MUTATIONS: dict[str, Resolver] = {
    "submitTagUserExportJob": _submit_tag_by_id,
    "submitTagUserExportJobByKey": _submit_tag_by_key,
    "submitSegmentUserExportJob": _submit_segment,
    "submitSegmentUserExportJobV2": _submit_segment,
    "submitSegmentSnapshotUserExportJob": _submit_segment,
    "submitAnalysisExportJob": _submit_analysis,
}
