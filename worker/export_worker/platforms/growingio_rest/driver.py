"""GrowingIO over REST (`/v1/api`): exports of segment profiles and tags, the catalog, and its other calls."""

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from yarl import URL

from export_worker.contract.request import (
    PATH_TEXT_PATTERN,
    ExportKind,
    GrowingioSegmentProfileUsers,
    GrowingioUserTagUsers,
)
from export_worker.credentials import Redactor
from export_worker.errors import (
    FieldProblem,
    InvalidRequestError,
    PlatformMalformedError,
    PlatformRefusedError,
    PlatformUnavailableError,
    PlatformUnclearError,
)
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile, Submitted
from export_worker.platforms.base import Download, Mark, Versioned
from export_worker.platforms.growingio_rest.files import UserListDownload, remote_files
from export_worker.platforms.growingio_rest.operations import (
    DC_USER_TAGS,
    EXPORT_DC_TAG,
    EXPORT_SEGMENT,
    EXPORT_TAG,
    OPERATIONS,
    PAGE_MAX,
    PROJECTS,
    SEGMENT_PROFILES,
    USER_TAGS,
    call_of,
)
from export_worker.platforms.growingio_rest.settings import GrowingioRestSettings, growingio_rest_auth
from export_worker.platforms.http.client import Call, HttpClient
from export_worker.platforms.http.downloads import Downloader
from export_worker.platforms.http.responses import one_line
from export_worker.platforms.operations import Operation
from export_worker.platforms.settings import ConnectionSettings, platform_settings

_FINISH = "FINISH"
_ERROR = "ERROR"
"""These two alone are terminal, as in GrowingIO's GraphQL, whose stages these are taken to be."""

_STAGE_MAX_CHARS = 256
"""A stage is kept in Redis; real ones have a dozen."""
_PAGES_MAX = 1000
"""A million items: a listing that goes on longer does not end."""
_PLAIN_ERROR = "Internal Server Error"
"""The body for a key that does not exist, as the pages on users show it; they do not show the status."""


class GrowingioRestDriver:
    """Speaks GrowingIO's REST API. Satisfies `Driver`, `Catalog` and `Operations`; may be built outside of a loop.

    Args:
        name: Of the connection.
        redactor: Learns the connection's token.

    Raises:
        ConfigError: An option is unknown or wrong, or the token cannot be read. Names `connections.<name>.<option>`.
    """

    resources: Sequence[str] = ("projects", "segments", "tags")
    operations: Mapping[str, Operation] = OPERATIONS

    def __init__(self, name: str, settings: ConnectionSettings, redactor: Redactor) -> None:
        self._settings = platform_settings(name, settings, GrowingioRestSettings)
        self._redactor = redactor
        self._client = HttpClient(name, self._settings.base_url, redactor, reach=self._settings.reach())
        self._auth = growingio_rest_auth(name, self._settings, self._client)
        self._downloader = Downloader(self._client, self._auth, self._settings.allow_hosts)

    async def submit(self, export: ExportKind) -> Submitted:
        """Start the job. The answer has an id and no stage.

        Raises:
            PlatformError: The platform does not answer as it should.
        """
        operation, arguments = _submission(export)
        call = call_of(operation, arguments, self._settings.space_id)
        job = _unwrapped(await self._ask(call))
        job_id = job.get("id") if isinstance(job, dict) else None
        # Polling puts it into a path.
        if not isinstance(job_id, str) or not re.fullmatch(PATH_TEXT_PATTERN, job_id) or not _is_text(job_id):
            raise PlatformMalformedError(f"{call}: the answer has no job id{self._excerpt(job)}")
        return Submitted(job_id)

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Look once at the job's result.

        Raises:
            PlatformMalformedError: The answer cannot be read. Retryable: a replica may lag behind after the submit.
        """
        call = self._result_call(export, operation_id)
        result = _unwrapped(await self._ask(call))
        stage = result.get("stage") if isinstance(result, dict) else None
        if not isinstance(stage, str) or not _is_text(stage) or not 0 < len(stage) <= _STAGE_MAX_CHARS:
            raise PlatformMalformedError(f"{call}: the answer has no stage{self._excerpt(result)}")
        if stage == _FINISH:
            return Ready(stage, remote_files(str(call), result.get("uris")))
        if stage == _ERROR:
            return OperationFailed(stage, f"the platform's job ended in ERROR{self._excerpt(result)}")
        return Pending(stage)

    @asynccontextmanager
    async def open_result(
        self,
        export: ExportKind,  # noqa: ARG002 - the protocol's argument
        file: RemoteFile,
    ) -> AsyncIterator[Download]:
        """Open one file. Its URI is percent-encoded already and goes out untouched; see `Downloader.open`."""
        async with self._downloader.open(self._address(file), file.name) as download:
            yield UserListDownload(download, self._settings.id_column, self._redactor)

    @asynccontextmanager
    async def resume_result(
        self,
        export: ExportKind,  # noqa: ARG002 - the protocol's argument
        file: RemoteFile,
        mark: Mark,
    ) -> AsyncIterator[Versioned]:
        """Open one file at the mark. No document speaks of ranges, so whether it goes on there is for the server."""
        async with self._downloader.open(self._address(file), file.name, mark) as download:
            # What comes before the mark was looked at when it came.
            is_rest = download.offset_bytes > 0
            yield download if is_rest else UserListDownload(download, self._settings.id_column, self._redactor)

    def _address(self, file: RemoteFile) -> URL:
        return self._client.address("/download?file=" + file.uri)

    async def catalog(self, resource: str, project: str | None) -> list[dict[str, Any]]:
        """List one resource, all pages of it; tags of the data centre when no project is given.

        Raises:
            InvalidRequestError: No such resource; `project` is missing, too much, or no id.
            PlatformError: The platform does not answer as it should.
        """
        operation = _listing(resource, project)
        if operation is PROJECTS:
            call = call_of(operation, {})
            return _page(call, await self._ask(call))[0]
        return await self._pages(operation, {"project_ID": project})

    async def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        body: AsyncIterator[bytes] | None,  # noqa: ARG002 - the protocol's argument
    ) -> Any:
        """Make one call of the table.

        Raises:
            InvalidRequestError: More than the platform takes.
            PlatformError: The platform does not answer as it should.
        """
        return await self._ask(call_of(operation, arguments, self._settings.space_id))

    async def close(self) -> None:
        """Close connections."""
        await self._auth.close()
        await self._client.close()

    async def _ask(self, call: Call) -> Any:
        try:
            return await self._client.call(call, self._auth)
        except (PlatformMalformedError, PlatformUnavailableError) as error:
            if _PLAIN_ERROR not in str(error):
                raise
            hint = "GrowingIO says so of a project, segment or tag that it does not know, too"
            kind = PlatformUnclearError if isinstance(error, PlatformUnavailableError) else PlatformMalformedError
            raise kind(f"{error} ({hint})", retry_after_s=error.retry_after_s) from None

    def _result_call(self, export: ExportKind, operation_id: str) -> Call:
        project_id = getattr(export, "project_id", None)
        path = self._settings.result_path_of(project_id)
        path = path.replace("{project_id}", project_id or "")
        return Call("GET", path.replace("{id}", quote(operation_id, safe="")))

    async def _pages(self, operation: Operation, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        before: list[dict[str, Any]] = []
        for _ in range(_PAGES_MAX):
            page_of = {**arguments, "limit": PAGE_MAX, "offset": len(items)}
            call = call_of(operation, page_of, self._settings.space_id)
            page, more = _page(call, await self._ask(call))
            if page and page == before:
                raise PlatformMalformedError(f"{call}: every page is the same")
            items += page
            if not more or not page:
                return items
            before = page
        raise PlatformMalformedError(f"{operation.name}: the listing does not end")

    def _excerpt(self, answer: Any) -> str:
        """What the platform says instead, as the end of a message."""
        return f": {one_line(json.dumps(answer, ensure_ascii=False), self._redactor)}"


def _submission(export: ExportKind) -> tuple[Operation, dict[str, Any]]:
    """The call for an export, with the arguments that are given."""
    match export:
        case GrowingioSegmentProfileUsers():
            operation, key = EXPORT_SEGMENT, {"segment_key": export.segment_key}
        case GrowingioUserTagUsers():
            operation, key = EXPORT_DC_TAG if export.project_id is None else EXPORT_TAG, {"tag_key": export.tag_key}
        case _:
            raise PlatformRefusedError(f"a connection to growingio-rest cannot export {export.kind}")
    return operation, {
        **key,
        "project_ID": export.project_id,
        "properties": export.properties,
        "fileFormat": export.file_format,
        "csvHeaderType": export.csv_header_type,
    }


def _listing(resource: str, project: str | None) -> Operation:
    """The call that lists the resource."""
    if project is not None and not re.fullmatch(PATH_TEXT_PATTERN, project):
        raise InvalidRequestError([FieldProblem("project", "must be a project's id")])
    match resource, project:
        case "projects", None:
            return PROJECTS
        case "projects", _:
            raise InvalidRequestError([FieldProblem("project", "is not used to list projects")])
        case "segments", None:
            raise InvalidRequestError([FieldProblem("project", "is required to list segments")])
        case "segments", _:
            return SEGMENT_PROFILES
        case "tags", _:
            return DC_USER_TAGS if project is None else USER_TAGS
        case _:
            known = ", ".join(GrowingioRestDriver.resources)
            raise InvalidRequestError([FieldProblem("resource", f"must be one of {known}")])


def _unwrapped(answer: Any) -> Any:
    """The answer itself; GrowingIO's GraphQL reference shows answers within a list of one, too."""
    return answer[0] if isinstance(answer, list) and len(answer) == 1 else answer


def _page(call: Call, answer: Any) -> tuple[list[dict[str, Any]], bool]:
    """The items of a page, and whether there are more: where the answer does not say, a full page is not the last."""
    match answer:
        case {"values": items} | [{"values": items}]:
            envelope = _unwrapped(answer)
        case [list(items)]:
            envelope = {}
        case items:
            envelope = {}
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise PlatformMalformedError(f"{call}: the answer is no list of objects")
    return items, bool(envelope.get("hasNextPage", len(items) >= PAGE_MAX))


def _is_text(value: str) -> bool:
    """Whether it can be stored and sent again: JSON can carry half a surrogate pair."""
    return not any("\ud800" <= char <= "\udfff" for char in value)
