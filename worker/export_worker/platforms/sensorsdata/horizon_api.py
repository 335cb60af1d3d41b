"""The current OpenAPI of Sensors Data (Horizon): segments and tags, their tasks, and their computed versions.

Source of the facts: the vendor's OpenAPI documents of Horizon 1.3.7, "Segment v1" and "Tag v1", which are shown at
https://manual.sensorsdata.cn/openapi?tab=reference&type=sa and stored at
https://github.com/api-evangelist/sensors-data (openapi/_original). They state: all calls are POSTs with a JSON body; a
response is an envelope whose `code` is `SUCCESS`; a base time is required, in UTC and written like
`2025-04-28T16:00:00Z`; a computation has no id until its task is listed; the names of statuses; how tasks are
cancelled. Inferred are: that a tag's tasks can be requested with both `base_time_list` and the range that it replaces,
and that a new computation has another task, or another start.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from export_worker.errors import PlatformMalformedError, PlatformRefusedError
from export_worker.platforms.http.client import SUBMIT_TIMEOUT_S, Call, HttpClient
from export_worker.platforms.http.outgoing import Auth
from export_worker.platforms.http.responses import one_line, reading_answer
from export_worker.platforms.sensorsdata.horizon_operations import HORIZON_PATH
from export_worker.platforms.sensorsdata.settings import SensorsdataSettings

LIST_PAGE_ROWS = 100
"""Definitions on one page of a listing. A definition contains its rules, so a page may have some hundred KiB."""


@dataclass(frozen=True, slots=True)
class Names:
    """How the API names what segments and tags have in common.

    Args:
        kind: What it is; also the first part of its paths.
        definitions: Field with the definitions in a listing.
        evaluated: Field with the name when a computation is requested.
        named: Field with the name when tasks or versions are requested.
        status: Field with the status of a task.
        report: Field with the report of a task, which has the number of users.
        succeeded: Status of a task that has succeeded.
        failed: Status of a task that has failed.
        cancelled: Status of a task that was cancelled.
        versions: Path of the call that lists computed versions.
        version_list: Field with the versions in its response.
        ready: Field and value of a version that can be used.
    """

    kind: Literal["segment", "tag"]
    definitions: str
    evaluated: str
    named: str
    status: str
    report: str
    succeeded: str
    failed: str
    cancelled: str
    versions: str
    version_list: str
    ready: tuple[str, Any]


SEGMENT = Names(
    kind="segment",
    definitions="segment_definitions",
    evaluated="segment_definition_name",
    named="definition_name",
    status="segment_task_status",
    report="segment_task_report",
    succeeded="SEGMENT_TASK_SUCCESS",
    failed="SEGMENT_TASK_FAILED",
    cancelled="SEGMENT_TASK_CANCELLED",
    versions="item/list",
    version_list="items",
    ready=("segment_ready", True),
)
TAG = Names(
    kind="tag",
    definitions="tags",
    evaluated="tag_definition_name",
    named="tag_name",
    status="status",
    report="tag_task_report",
    succeeded="TAG_SUCCESS",
    failed="TAG_FAILED",
    cancelled="TAG_TASK_CANCELLED",
    versions="partition/get",
    version_list="tag_partitions",
    ready=("status", "TAG_PARTITION_AVAILABLE"),
)
VERSIONS_MAX = 20
"""Versions that are requested to find the newest one that can be used."""


class HorizonCalls:
    """Builds calls according to the settings of a connection."""

    def __init__(self, settings: SensorsdataSettings) -> None:
        self._prefix = settings.api_prefix + HORIZON_PATH
        self._entity = {"entity_name": settings.entity_name}
        self._project = {} if settings.project_id is None else {"project_id": settings.project_id}

    def listing(self, names: Names, page: int, page_size: int = LIST_PAGE_ROWS) -> Call:
        """`POST {segment,tag}/definition/list`: one page of all definitions, from page 1 on."""
        body = {**self._for_tags(names), "page": page, "page_size": page_size}
        return self._call(names, "definition/list", body, is_listing=True)

    def definition(self, names: Names, name: str) -> Call:
        """`POST {segment,tag}/definition/get`."""
        return self._call(names, "definition/get", {**self._for_tags(names), "name": name})

    def evaluate(self, names: Names, name: str, base_time: str) -> Call:
        """`POST {segment,tag}/definition/evaluate`: computes the version of one base time."""
        params = [{names.evaluated: name, "base_time": base_time}]
        path = f"{self._prefix}/{names.kind}/definition/evaluate"
        body = {**self._entity, "evaluate_params": params}
        return Call("POST", path, json=body, timeout_s=SUBMIT_TIMEOUT_S, starts_work=True)

    def tasks(self, names: Names, name: str, base_time: str) -> Call:
        """`POST {segment,tag}/task/get`: the last task of one base time."""
        # The tag document requires the range, and prefers the list if there is one.
        span = {"start_time": base_time, "end_time": base_time} if names is TAG else {}
        body = {names.named: name, **span, "base_time_list": [base_time], "fetch_all": False}
        return self._call(names, "task/get", {**self._entity, **body})

    def cancel(self, names: Names, task_id: int) -> Call:
        """`POST {segment,tag}/task/cancel`: requests the end of a task, and does not wait for it."""
        return self._call(names, "task/cancel", {"task_ids": [task_id], "sync": False})

    def versions(self, names: Names, name: str) -> Call:
        """`POST segment/item/list` or `tag/partition/get`: the versions; those of segments are the newest."""
        ready = {"segment_ready": True} if names is SEGMENT else {}
        return self._call(names, names.versions, {**self._entity, names.named: name, **ready, "limit": VERSIONS_MAX})

    def other(self, path: str, arguments: Mapping[str, Any]) -> Call:
        """Any other call of the table; `path` is the one in the table."""
        path = self._prefix.removesuffix(HORIZON_PATH) + path
        return Call("POST", path, json=dict(arguments), is_listing=True)

    def _for_tags(self, names: Names) -> dict[str, Any]:
        return {**self._entity, **(self._project if names is TAG else {})}

    def _call(self, names: Names, path: str, body: Mapping[str, Any], *, is_listing: bool = False) -> Call:
        return Call("POST", f"{self._prefix}/{names.kind}/{path}", json=dict(body), is_listing=is_listing)


class HorizonApi:
    """Sends calls and opens the envelope of their responses."""

    def __init__(self, client: HttpClient, auth: Auth) -> None:
        self._client = client
        self._auth = auth

    async def data(self, call: Call) -> dict[str, Any]:
        """Sends a call and returns the data in the envelope; empty if it has none.

        Raises:
            PlatformRefusedError: The envelope has another code than `SUCCESS`.
            PlatformError: No response, an error status, or no envelope.
        """
        envelope = await self._client.call(call, self._auth)
        with reading_answer(starts_work=call.starts_work):
            code = envelope.get("code") if isinstance(envelope, dict) else None
            if not isinstance(code, str) or not isinstance(data := envelope.get("data") or {}, dict):
                raise PlatformMalformedError(f"{call}: the response is no envelope with code and data")
            if code != "SUCCESS":
                raise PlatformRefusedError(f"{call}: {self._reason(code, envelope)}")
            return data

    def _reason(self, code: str, envelope: Mapping[str, Any]) -> str:
        info = envelope.get("error_info")
        details = (info.get("code"), info.get("description")) if isinstance(info, dict) else ()
        texts = [text for text in (code, envelope.get("message"), *details) if isinstance(text, str) and text]
        return one_line(": ".join(dict.fromkeys(texts)), self._client.redactor)
