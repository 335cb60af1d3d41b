"""ThinkingData ("TA"): the users of clusters and tags, refreshed first, then selected by the SQL API."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode

from export_worker.contract.request import ExportKind, ThinkingdataClusterUsers
from export_worker.credentials import Redactor
from export_worker.errors import PlatformMalformedError, PlatformRefusedError, ResultMissingError
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile, Submitted
from export_worker.platforms.base import Download
from export_worker.platforms.http.client import UPLOAD_TIMEOUT_S, Call, HttpClient
from export_worker.platforms.http.downloads import Downloader
from export_worker.platforms.http.responses import one_line
from export_worker.platforms.operations import Operation
from export_worker.platforms.settings import ConnectionSettings, platform_settings
from export_worker.platforms.thinkingdata.api import ThinkingdataApi
from export_worker.platforms.thinkingdata.catalog import RESOURCES, list_call, list_clusters
from export_worker.platforms.thinkingdata.operation_ids import DONE, FAILED, Query, Refresh, parse_handle, read_progress
from export_worker.platforms.thinkingdata.operations import CATALOGS, OPERATIONS, request_parts
from export_worker.platforms.thinkingdata.result import PAGE_PATH, SqlPages, SqlResult, result_stat
from export_worker.platforms.thinkingdata.rows import CsvTable, JsonTable
from export_worker.platforms.thinkingdata.settings import ThinkingdataSettings, thinkingdata_auth
from export_worker.platforms.thinkingdata.sql import columns_of, statement

WAITING = "REFRESH_WAITING"
REFRESHING = "REFRESHING"
"""Our words: of a refresh, the platform tells a number only."""
QUERY_SUBMITTED = "SQL_SUBMITTED"
"""Ours, too: the answer to a submit has a task and no status."""

FAILED_LOOKS_MAX = 5
"""A failure from before the refresh may show until it begins; one that stays so long is this refresh's own."""

_TEXT_MAX_CHARS = 4096
"""Of a name or an id: all of them are kept in Redis."""


class ThinkingdataDriver:
    """Speaks ThinkingData's Open API. Satisfies `Driver`, `Catalog` and `Operations`; may be built outside of a loop.

    Args:
        name: Of the connection.
        redactor: Learns the token, which stands in every query string.

    Raises:
        ConfigError: An option is unknown or wrong, or the token cannot be read. Names `connections.<name>.<option>`.
    """

    resources: Sequence[str] = RESOURCES
    operations: Mapping[str, Operation] = OPERATIONS

    def __init__(self, name: str, settings: ConnectionSettings, redactor: Redactor) -> None:
        self._settings = platform_settings(name, settings, ThinkingdataSettings)
        self._redactor = redactor
        self._client = HttpClient(name, self._settings.base_url, redactor, reach=self._settings.reach())
        self._auth = thinkingdata_auth(name, self._settings, redactor)
        self._api = ThinkingdataApi(self._client, self._auth, self._settings)
        self._downloader = Downloader(self._client, self._auth, self._settings.allow_hosts)

    async def submit(self, export: ExportKind) -> Submitted:
        """Ask for a refresh, noting what was there before; or begin the query at once.

        A refresh that somebody else had asked for and that is still at work cannot be told from ours: either way the
        users are those of a moment after the export was asked for, or shortly before.

        Raises:
            PlatformError: The platform does not answer as it should.
        """
        asked = _cluster_users(export)
        if not asked.refresh:
            cluster = asked.cluster_name or self._cluster_name(await self._detail(asked))
            return Submitted(str(await self._query(asked, cluster)), QUERY_SUBMITTED)
        detail = await self._detail(asked)
        refresh = Refresh(
            cluster=asked.cluster_name or self._cluster_name(detail),
            time_before=_refresh_time(detail),
            progress_before=_progress_before(detail),
        )
        await self._api.data(_call("POST", "user-cluster-refresh", asked))
        return Submitted(str(refresh), WAITING)

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Look once: at the refresh, and when that is done begin the query; then at the query's task.

        Raises:
            ResultMissingError: The query's tasks go before their result can be had, again and again.
            PlatformError: The platform does not answer as it should.
        """
        asked = _cluster_users(export)
        match parse_handle(operation_id):
            case Refresh() as refresh:
                return await self._poll_refresh(asked, refresh)
            case Query() as query:
                return await self._poll_query(asked, query)

    async def _poll_refresh(self, asked: ThinkingdataClusterUsers, refresh: Refresh) -> Polled:
        # In this order: were the time to change at the beginning, a progress read before could be that of the last one.
        changed = not refresh.seen and await self._time_changed(asked, refresh)
        call = _call("GET", "user-cluster-refresh-progress", asked)
        data = await self._api.data(call)
        if not isinstance(data, Mapping | None):
            raise PlatformMalformedError(f"{call}: the answer's data is no object")
        progress = read_progress(None if data is None else data.get("progress"), str(call))
        begun = refresh.seen or changed
        if progress is None:
            return Pending(REFRESHING if begun else WAITING)
        news = begun or refresh.is_news(progress)
        if progress == FAILED:
            return self._failed_refresh(refresh, news=news)
        if progress == DONE and news:
            query = await self._query(asked, refresh.cluster)
            return Pending(QUERY_SUBMITTED, operation_id=str(query), submitted=True)
        if not news:
            return Pending(WAITING)
        return Pending(REFRESHING, progress, None if refresh.seen else str(refresh.now_seen()))

    def _failed_refresh(self, refresh: Refresh, *, news: bool) -> Polled:
        again = refresh.failed_again()
        if news or again.failed_looks >= FAILED_LOOKS_MAX:
            return OperationFailed(str(int(FAILED)), "the refresh failed (progress -1); the platform does not say why")
        return Pending(WAITING, operation_id=str(again))

    async def _time_changed(self, asked: ThinkingdataClusterUsers, refresh: Refresh) -> bool:
        now = _refresh_time(await self._detail(asked))
        return bool(now) and now != refresh.time_before

    async def _poll_query(self, asked: ThinkingdataClusterUsers, query: Query) -> Polled:
        envelope = await self._api.ask(_task_info(query.task_id))
        if self._api.is_gone(envelope):
            return await self._restart(asked, query, envelope.message)
        info = self._api.good_object(envelope)
        status = _text(info.get("status"))
        match (status or "").strip().upper():
            case "FINISHED":
                return Ready(status, (_file(asked, query),))
            case "FAILED":
                return OperationFailed(status, self._why(info))
            case _:
                return Pending(status, _percent(info.get("progress")))

    async def _restart(self, asked: ThinkingdataClusterUsers, query: Query, message: str) -> Polled:
        """Begin the query anew, since its task has gone."""
        if query.restarts >= self._settings.sql_restarts:
            said = one_line(message, self._redactor)
            raise ResultMissingError(f"SQL tasks have gone {query.restarts + 1} times before their end: {said}")
        again = await self._query(asked, query.cluster, query.restarts + 1)
        return Pending(QUERY_SUBMITTED, operation_id=str(again), submitted=True)

    async def _query(self, asked: ThinkingdataClusterUsers, cluster: str, restarts: int = 0) -> Query:
        form = {
            "sql": statement(asked, cluster, self._settings),
            "format": asked.file_format or "csv",
            "pageSize": str(self._settings.page_rows),
        }
        if self._settings.sql_timeout_s is not None:
            form["timeoutSeconds"] = str(self._settings.sql_timeout_s)
        call = Call("POST", "/open/submit-sql", form=form)
        task_id = _text((await self._api.object(call)).get("taskId"))
        if task_id is None:
            raise PlatformMalformedError(f"{call}: the answer has no taskId")
        return Query(task_id, cluster, restarts)

    @asynccontextmanager
    async def open_result(self, export: ExportKind, file: RemoteFile) -> AsyncIterator[Download]:
        """Open the result of a finished task.

        Raises:
            ResultMissingError: The task has gone, or is not done (any more): to be polled again.
            PlatformError: The platform does not answer as it should.
        """
        asked = _cluster_users(export)
        task_id = parse_qs(file.uri.partition("?")[2]).get("taskId", [""])[0]
        call = _task_info(task_id)
        envelope = await self._api.ask(call)
        if self._api.is_gone(envelope):
            raise ResultMissingError(str(self._api.problem(envelope)))
        info = self._api.good_object(envelope)
        if _text(info.get("status")) != "FINISHED":
            raise ResultMissingError(f"{call}: the task is not FINISHED any more")
        stat = result_stat(info, columns_of(asked, self._settings), self._settings)
        table = JsonTable(stat.headers) if asked.file_format == "json" else CsvTable(stat.headers)
        pages = SqlPages(
            task_id, client=self._client, downloader=self._downloader, api=self._api, settings=self._settings
        )
        yield SqlResult(pages, stat, table)

    async def catalog(self, resource: str, project: str | None) -> list[dict[str, Any]]:
        """List one resource of a project; see `list_clusters`."""
        return await list_clusters(self._api, resource, project, self._settings.list_page_size)

    async def check(self) -> str:
        """List the clusters of a project that cannot be: a good token is told so, a bad one is refused before.

        Raises:
            PlatformError: The token is refused, or the platform does not answer as it should.
        """
        call = list_call(CATALOGS[0], project_id=0, number=1, page_size=1)
        problem = self._api.problem(await self._api.ask(call))
        if problem is not None and not isinstance(problem, PlatformRefusedError):
            raise problem
        return "the token is known"

    async def call(self, operation: Operation, arguments: Mapping[str, Any], body: AsyncIterator[bytes] | None) -> Any:
        """Make one call; see `Operations.call`."""
        query, json = request_parts(operation, arguments)
        call = Call(operation.method, operation.path, query=query, json=json)
        if body is not None:
            call = Call(
                operation.method,
                operation.path,
                query=query,
                data=body,
                content_type="text/csv",
                timeout_s=UPLOAD_TIMEOUT_S,
            )
        return await self._api.data(call)

    async def close(self) -> None:
        """Close connections."""
        await self._auth.close()
        await self._client.close()

    async def _detail(self, asked: ThinkingdataClusterUsers) -> Mapping[str, Any]:
        query = {"projectId": str(asked.project_id), **_which(asked)}
        return await self._api.object(Call("GET", "/open/user-cluster-detail", query=query))

    def _cluster_name(self, detail: Mapping[str, Any]) -> str:
        name = _text(detail.get("clusterName"))
        if name is None:
            raise PlatformMalformedError("GET /open/user-cluster-detail: the answer has no clusterName")
        return name

    def _why(self, info: Mapping[str, Any]) -> str:
        """What the platform says of a query that failed; no document names the field."""
        words = [text for name, text in info.items() if _is_reason(name) and isinstance(text, str) and text]
        said = one_line("; ".join(words), self._redactor)
        return f"the query of the users failed: {said or 'the platform does not say why'}"


def _cluster_users(export: ExportKind) -> ThinkingdataClusterUsers:
    if not isinstance(export, ThinkingdataClusterUsers):
        raise PlatformRefusedError(f"a connection to thinkingdata cannot export {export.kind}")
    return export


def _which(asked: ThinkingdataClusterUsers) -> dict[str, str]:
    if asked.cluster_name is not None:
        return {"clusterName": asked.cluster_name}
    return {"clusterId": str(asked.cluster_id)}


def _call(method: str, name: str, asked: ThinkingdataClusterUsers) -> Call:
    """A call that has two paths: for an id, and for a name."""
    path = f"/open/{name}" if asked.cluster_name is None else f"/open/{name}-by-name"
    return Call(method, path, query={"projectId": str(asked.project_id), **_which(asked)})


def _task_info(task_id: str) -> Call:
    return Call("GET", "/open/sql-task-info", query={"taskId": task_id})


def _file(asked: ThinkingdataClusterUsers, query: Query) -> RemoteFile:
    """The one file of a task. JSON is one object a line, which every reader of `.json` lines takes."""
    suffix = asked.file_format or "csv"
    return RemoteFile(f"{PAGE_PATH}?{urlencode({'taskId': query.task_id})}", f"{query.cluster}.{suffix}")


def _refresh_time(detail: Mapping[str, Any]) -> str:
    return _text(detail.get("refreshTime")) or ""


def _progress_before(detail: Mapping[str, Any]) -> float | None:
    """What cannot be read is no reason to refuse an export: it is only compared with."""
    try:
        return read_progress(detail.get("progress"), "user-cluster-detail")
    except PlatformMalformedError:
        return None


def _percent(progress: Any) -> float | None:
    """Of a query's task, for people only."""
    try:
        percent = read_progress(progress, "sql-task-info")
    except PlatformMalformedError:
        return None
    return None if percent == FAILED else percent


def _is_reason(name: Any) -> bool:
    return isinstance(name, str) and any(word in name.lower() for word in ("message", "error", "reason"))


def _text(value: Any) -> str | None:
    """The value, if it is a text that can be stored and sent again (JSON can carry half a surrogate pair)."""
    if not isinstance(value, str) or not 0 < len(value) <= _TEXT_MAX_CHARS:
        return None
    return None if any("\ud800" <= char <= "\udfff" for char in value) else value
