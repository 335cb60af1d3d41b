"""The driver of ThinkingData ("TA"): exports of the users of clusters and tags: a refresh, then an SQL query."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from export_worker.contract.dry_run import Preview
from export_worker.contract.request import ExportKind, ThinkingdataClusterUsers
from export_worker.credentials import Redactor
from export_worker.errors import PlatformMalformedError, PlatformRefusedError, ResultMissingError
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile, Submitted
from export_worker.platforms.base import Download
from export_worker.platforms.http.client import SUBMIT_TIMEOUT_S, UPLOAD_TIMEOUT_S, Call, HttpClient
from export_worker.platforms.http.downloads import Downloader
from export_worker.platforms.http.responses import one_line, storable_text
from export_worker.platforms.http.values import count_of, id_text, state_of, whole_number
from export_worker.platforms.operations import Operation
from export_worker.platforms.settings import ConnectionSettings, platform_settings
from export_worker.platforms.thinkingdata.api import ThinkingdataApi
from export_worker.platforms.thinkingdata.catalog import RESOURCES, list_call, list_clusters
from export_worker.platforms.thinkingdata.operation_ids import (
    DONE,
    FAILED,
    Query,
    Refresh,
    parse_operation_id,
    parse_progress,
)
from export_worker.platforms.thinkingdata.operations import CATALOGS, OPERATIONS, request_parts
from export_worker.platforms.thinkingdata.result import PAGE_PATH, SqlPages, SqlResult, result_stat
from export_worker.platforms.thinkingdata.rows import CsvTable, JsonTable
from export_worker.platforms.thinkingdata.settings import ThinkingdataSettings, thinkingdata_auth
from export_worker.platforms.thinkingdata.sql import columns_of, statement

WAITING = "REFRESH_WAITING"
REFRESHING = "REFRESHING"
"""Stages that this driver defines: the platform reports only a number for a refresh."""
QUERY_SUBMITTED = "SQL_SUBMITTED"
"""A stage that this driver defines: the response to a submitted query has a task id and no status."""

FAILED_POLLS_MAX = 5
"""The failure of the previous refresh may be visible until this refresh starts. After this many polls, the failure
counts as that of this refresh."""

_TEXT_MAX_CHARS = 4096
"""Limit of a name, an id or a status: all of them are stored in Redis."""


class ThinkingdataDriver:
    """Implements `Driver`, `Cancelling`, `Catalog`, `Previewing`, `Checking` and `Operations`.

    Can be built outside of an event loop.

    Args:
        name: Name of the connection.
        settings: The connection's section of the configuration.
        redactor: Receives the token, which is part of every query string.

    Raises:
        ConfigError: An option is unknown or wrong, or the token cannot be read. Names `connections.<name>.<option>`.
    """

    resources: Sequence[str] = RESOURCES
    operations: Mapping[str, Operation] = OPERATIONS
    settings_model = ThinkingdataSettings

    def __init__(self, name: str, settings: ConnectionSettings, redactor: Redactor) -> None:
        own = platform_settings(name, settings, self.settings_model)
        self._settings = own
        self._redactor = redactor
        self._client = HttpClient.for_connection(name, own, redactor)
        self._auth = thinkingdata_auth(name, own, redactor)
        self._api = ThinkingdataApi(self._client, self._auth, own)
        self._downloader = Downloader(self._client, self._auth, own.allow_hosts, own.file_content_types)

    async def submit(self, export: ExportKind) -> Submitted:
        """Requests a refresh and records the state from before it; or starts the query at once.

        A running refresh that was requested elsewhere looks the same as ours. In both cases the exported users are
        those of a moment after the export was requested, or shortly before.

        Raises:
            PlatformError: The platform did not give a usable response.
        """
        request = _cluster_users(export)
        if not request.refresh:
            cluster = request.cluster_name or self._cluster_name(await self._detail(request))
            return Submitted(str(await self._query(request, cluster)), QUERY_SUBMITTED)
        detail = await self._detail(request)
        refresh = Refresh(
            cluster=request.cluster_name or self._cluster_name(detail),
            time_before=_refresh_time(detail),
            progress_before=_progress_before(detail),
        )
        call = _call("POST", "user-cluster-refresh", request)
        await self._api.data(replace(call, starts_work=True, timeout_s=SUBMIT_TIMEOUT_S))
        return Submitted(str(refresh), WAITING)

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Requests the state once: of the refresh, and after that of the query's task.

        The poll that finds the refresh done starts the query.

        Raises:
            ResultMissingError: The query's tasks expired several times before their end.
            PlatformError: The platform did not give a usable response.
        """
        request = _cluster_users(export)
        match parse_operation_id(operation_id):
            case Refresh() as refresh:
                return await self._poll_refresh(request, refresh)
            case Query() as query:
                return await self._poll_query(request, query)

    async def _poll_refresh(self, request: ThinkingdataClusterUsers, refresh: Refresh) -> Polled:
        # The time is read before the progress. Read in the other order, the progress could still be that of the
        # previous refresh while the time is already that of this one.
        changed = not refresh.started and await self._time_changed(request, refresh)
        call = _call("GET", "user-cluster-refresh-progress", request)
        data = await self._api.data(call)
        if not isinstance(data, Mapping | None):
            raise PlatformMalformedError(f"{call}: the response's data is no object")
        progress = parse_progress(None if data is None else data.get("progress"), str(call))
        started = refresh.started or changed
        if progress is None:
            return Pending(REFRESHING if started else WAITING)
        is_current = started or refresh.is_current(progress)
        if progress == FAILED:
            return self._failed_refresh(refresh, is_current=is_current)
        if progress == DONE and is_current:
            query = await self._query(request, refresh.cluster)
            return Pending(QUERY_SUBMITTED, operation_id=str(query), submitted=True)
        if not is_current:
            return Pending(WAITING)
        return Pending(REFRESHING, progress, None if refresh.started else str(refresh.as_started()))

    def _failed_refresh(self, refresh: Refresh, *, is_current: bool) -> Polled:
        counted = refresh.with_failed_poll()
        if is_current or counted.failed_polls >= FAILED_POLLS_MAX:
            return OperationFailed(str(int(FAILED)), "the refresh failed (progress -1); the platform states no reason")
        return Pending(WAITING, operation_id=str(counted))

    async def _time_changed(self, request: ThinkingdataClusterUsers, refresh: Refresh) -> bool:
        now = _refresh_time(await self._detail(request))
        return bool(now) and now != refresh.time_before

    async def _poll_query(self, request: ThinkingdataClusterUsers, query: Query) -> Polled:
        envelope = await self._api.send(self._task_info(request, query.task_id))
        if self._api.is_missing(envelope):
            return await self._restart(request, query, envelope.message)
        info = self._api.object_of(envelope)
        status = _text(info.get("status"))
        match state_of(status):
            case "FINISHED":
                return Ready(status, (_file(request, query),))
            case "FAILED":
                return OperationFailed(status, self._failure_message(info))
            case _:
                return Pending(status, _percent(info.get("progress")))

    async def _restart(self, request: ThinkingdataClusterUsers, query: Query, message: str) -> Polled:
        """Restarts the query, because its task has expired."""
        if query.restarts >= self._settings.sql_restarts:
            excerpt = one_line(message, self._redactor)
            raise ResultMissingError(f"SQL tasks expired {query.restarts + 1} times before their end: {excerpt}")
        restarted = await self._query(request, query.cluster, query.restarts + 1)
        return Pending(QUERY_SUBMITTED, operation_id=str(restarted), submitted=True)

    async def _query(self, request: ThinkingdataClusterUsers, cluster: str, restarts: int = 0) -> Query:
        form = {
            "sql": statement(request, cluster, self._settings),
            "format": request.file_format or "csv",
            "pageSize": str(self._settings.page_rows),
        }
        if self._settings.sql_timeout_s is not None:
            form["timeoutSeconds"] = str(self._settings.sql_timeout_s)
        call = self._sql_post("submit-sql", request, form)
        call = replace(call, timeout_s=SUBMIT_TIMEOUT_S, starts_work=True)
        task_id = id_text((await self._api.object(call)).get("taskId"), _TEXT_MAX_CHARS)
        if task_id is None:
            raise PlatformMalformedError(f"{call}: the response has no taskId", unclear=True)
        return Query(task_id, cluster, restarts)

    @asynccontextmanager
    async def open_result(self, export: ExportKind, file: RemoteFile) -> AsyncIterator[Download]:
        """Opens the result of a finished task.

        Raises:
            ResultMissingError: The task has expired, is no longer finished, or the platform refuses to show it. The
                export must be polled again.
            PlatformError: The platform did not give a usable response.
        """
        request = _cluster_users(export)
        task_id = parse_qs(file.uri.partition("?")[2]).get("taskId", [""])[0]
        call = self._task_info(request, task_id)
        envelope = await self._api.send(call)
        error = self._api.error_for(envelope)
        if isinstance(error, PlatformRefusedError):
            raise ResultMissingError(str(error))
        info = self._api.object_of(envelope)
        if state_of(_text(info.get("status"))) != "FINISHED":
            raise ResultMissingError(f"{call}: the task is no longer FINISHED")
        stat = result_stat(info, columns_of(request, self._settings), self._settings)
        table = JsonTable(stat.headers) if request.file_format == "json" else CsvTable(stat.headers)
        task = {"taskId": task_id, **self._project(request)}
        pages = SqlPages(task, client=self._client, downloader=self._downloader, api=self._api, settings=self._settings)
        yield SqlResult(pages, stat, table)

    async def cancel(self, export: ExportKind, operation_id: str) -> bool:
        """Cancels the query. The platform has no call that cancels a refresh; then the result is False.

        A query whose task does not exist any more counts as cancelled.

        Raises:
            PlatformError: The platform did not receive the request, or refused it.
        """
        request, operation = _cluster_users(export), parse_operation_id(operation_id)
        if isinstance(operation, Refresh):
            return False
        call = self._sql_post("cancel-sql-task", request, {"taskId": operation.task_id})
        envelope = await self._api.send(call)
        if not self._api.is_missing(envelope):
            self._api.data_of(envelope)
        return True

    async def catalog(self, resource: str, project: str | None) -> list[dict[str, Any]]:
        """Lists one resource of a project; see `list_clusters`."""
        return await list_clusters(self._api, resource, project, self._settings.list_page_size)

    async def preview(self, export: ExportKind) -> Preview:
        """Requests the cluster or tag of an export, with the number of its users as of the last refresh."""
        request = _cluster_users(export)
        detail = await self._detail(request)
        cluster_id = whole_number(detail.get("id"))
        is_id = request.cluster_id is None and cluster_id is not None
        return Preview(
            found=True,
            name=_text(detail.get("displayName")) or _text(detail.get("clusterName")),
            ids={"cluster_id": str(cluster_id)} if is_id else {},
            users=count_of(detail.get("usersNum")),
        )

    async def check(self) -> str:
        """Lists the clusters of project 0, which cannot exist.

        The platform refuses a bad token first. With a good token it reports the unknown project, which is ignored here.

        Raises:
            PlatformError: The platform refused the token, or did not give a usable response.
        """
        call = list_call(CATALOGS[0], project_id=0, number=1, page_size=1)
        error = self._api.error_for(await self._api.send(call))
        if error is not None and not isinstance(error, PlatformRefusedError):
            raise error
        return "the token is known"

    async def call(self, operation: Operation, arguments: Mapping[str, Any], body: AsyncIterator[bytes] | None) -> Any:
        """Makes one call; see `Operations.call`."""
        query, json = request_parts(operation, arguments)
        call = Call(operation.method, operation.path, query=query, json=json, is_listing=True)
        if body is not None:
            call = Call(
                operation.method,
                operation.path,
                query=query,
                data=body,
                content_type="text/csv",
                timeout_s=UPLOAD_TIMEOUT_S,
                is_repeatable=operation.replaces,
            )
        return await self._api.data(call)

    async def close(self) -> None:
        """Closes connections."""
        await self._auth.close()
        await self._client.close()

    async def _detail(self, request: ThinkingdataClusterUsers) -> Mapping[str, Any]:
        query = {"projectId": str(request.project_id), **_which(request)}
        return await self._api.object(Call("GET", "/open/user-cluster-detail", query=query))

    def _sql_post(self, name: str, request: ThinkingdataClusterUsers, form: Mapping[str, str]) -> Call:
        return Call("POST", f"/open/{name}", query=self._project(request), form=form)

    def _task_info(self, request: ThinkingdataClusterUsers, task_id: str) -> Call:
        return Call("GET", "/open/sql-task-info", query={"taskId": task_id, **self._project(request)})

    def _project(self, request: ThinkingdataClusterUsers) -> dict[str, str]:
        return {"projectId": str(request.project_id)} if self._settings.send_project_id else {}

    def _cluster_name(self, detail: Mapping[str, Any]) -> str:
        name = _text(detail.get("clusterName"))
        if name is None:
            raise PlatformMalformedError("GET /open/user-cluster-detail: the response has no clusterName")
        return name

    def _failure_message(self, info: Mapping[str, Any]) -> str:
        """Returns the message for a failed query, with the platform's reason. No document names the field of it."""
        reasons = [text for name, text in info.items() if _is_reason(name) and isinstance(text, str) and text]
        reason = one_line("; ".join(reasons), self._redactor)
        return f"the query of the users failed: {reason or 'the platform states no reason'}"


def _cluster_users(export: ExportKind) -> ThinkingdataClusterUsers:
    if not isinstance(export, ThinkingdataClusterUsers):
        raise PlatformRefusedError(f"a connection to thinkingdata cannot export {export.kind}")
    return export


def _which(request: ThinkingdataClusterUsers) -> dict[str, str]:
    if request.cluster_name is not None:
        return {"clusterName": request.cluster_name}
    return {"clusterId": str(request.cluster_id)}


def _call(method: str, name: str, request: ThinkingdataClusterUsers) -> Call:
    """Returns a call that has two paths: one for a cluster's id, one for its name."""
    path = f"/open/{name}" if request.cluster_name is None else f"/open/{name}-by-name"
    return Call(method, path, query={"projectId": str(request.project_id), **_which(request)})


def _file(request: ThinkingdataClusterUsers, query: Query) -> RemoteFile:
    """Returns the single file of a task. With the format `json`, the file has one object a line."""
    suffix = request.file_format or "csv"
    return RemoteFile(f"{PAGE_PATH}?{urlencode({'taskId': query.task_id})}", f"{query.cluster}.{suffix}")


def _refresh_time(detail: Mapping[str, Any]) -> str:
    return _text(detail.get("refreshTime")) or ""


def _progress_before(detail: Mapping[str, Any]) -> float | None:
    """Returns the progress before a refresh; None when it cannot be parsed.

    An unreadable progress does not fail the export, because it is only used for a comparison.
    """
    try:
        return parse_progress(detail.get("progress"), "user-cluster-detail")
    except PlatformMalformedError:
        return None


def _percent(progress: Any) -> float | None:
    """Returns the progress of a query's task, which is only shown to people; None when it cannot be parsed."""
    try:
        percent = parse_progress(progress, "sql-task-info")
    except PlatformMalformedError:
        return None
    return None if percent == FAILED else percent


def _is_reason(name: Any) -> bool:
    return isinstance(name, str) and any(part in name.lower() for part in ("message", "error", "reason"))


def _text(value: Any) -> str | None:
    return storable_text(value, _TEXT_MAX_CHARS)
