"""The driver of GrowingIO over REST (`/v1/api`): exports of segment profiles and tags, the catalog, other calls."""

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from yarl import URL

from export_worker.contract.dry_run import Preview
from export_worker.contract.field_types import PATH_TEXT_PATTERN
from export_worker.contract.request import (
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
from export_worker.platforms.base import Download, ResumePoint, Versioned
from export_worker.platforms.growingio_rest.entities import entity_of, users_of
from export_worker.platforms.growingio_rest.files import UserListDownload, remote_files
from export_worker.platforms.growingio_rest.operations import (
    DC_USER_TAGS,
    EXPORT_DC_TAG,
    EXPORT_PROJECT_TAG,
    EXPORT_SEGMENT,
    EXPORT_TAG,
    OPERATIONS,
    PAGE_MAX,
    PROJECT_USER_TAGS,
    PROJECTS,
    SEGMENT_PROFILES,
    USER_TAGS,
    call_of,
)
from export_worker.platforms.growingio_rest.settings import RESULT_PATH, GrowingioRestSettings, growingio_rest_auth
from export_worker.platforms.http.client import SUBMIT_TIMEOUT_S, Call, HttpClient
from export_worker.platforms.http.downloads import Downloader
from export_worker.platforms.http.listings import ListingLimit, look_up
from export_worker.platforms.http.responses import one_line, storable_text
from export_worker.platforms.http.values import id_text, state_of
from export_worker.platforms.operations import Operation
from export_worker.platforms.settings import ConnectionSettings, platform_settings

_FINISH = "FINISH"
_ERROR = "ERROR"
"""The only terminal stages. The stages are assumed to be those of GrowingIO's GraphQL."""

_TEXT_MAX_CHARS = 256
"""Limit of an id or a stage. Both are stored in Redis; a real stage has a dozen characters."""
_NO_JOB = "00000000"
"""An id in the form of the document's, which no job has."""
_PLAIN_ERROR = "Internal Server Error"
"""Body of the response for an unknown key. The documentation's pages about users show this body, but no HTTP status."""


class GrowingioRestDriver:
    """Implements `Driver`, `Resuming`, `Catalog`, `Previewing`, `Checking` and `Operations`.

    Can be built outside of an event loop.

    Args:
        name: Name of the connection.
        settings: The connection's section of the configuration.
        redactor: Receives the connection's token.

    Raises:
        ConfigError: An option is unknown or wrong, or the token cannot be read. The message names
            `connections.<name>.<option>`.
    """

    resources: Sequence[str] = ("projects", "segments", "tags", "project-tags")
    operations: Mapping[str, Operation] = OPERATIONS
    settings_model = GrowingioRestSettings

    def __init__(self, name: str, settings: ConnectionSettings, redactor: Redactor) -> None:
        own = platform_settings(name, settings, self.settings_model)
        self._settings = own
        self._redactor = redactor
        self._client = HttpClient.for_connection(name, own, redactor)
        self._auth = growingio_rest_auth(name, own, self._client)
        self._downloader = Downloader(self._client, self._auth, own.allow_hosts, own.file_content_types)

    async def submit(self, export: ExportKind) -> Submitted:
        """Starts the job. The response has an id and no stage.

        Raises:
            PlatformError: The platform did not give a usable response.
        """
        operation, arguments = _submission(export)
        call = call_of(operation, arguments, self._settings.space_id)
        call = replace(call, starts_work=True, timeout_s=SUBMIT_TIMEOUT_S)
        job = _unwrapped(await self._send(call))
        job_id = id_text(job.get("id"), _TEXT_MAX_CHARS) if isinstance(job, dict) else None
        # The id becomes part of a path when the job is polled.
        if job_id is None or not re.fullmatch(PATH_TEXT_PATTERN, job_id):
            raise PlatformMalformedError(f"{call}: the response has no job id{self._excerpt(job)}", unclear=True)
        return Submitted(job_id)

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Requests the job's result once.

        Raises:
            PlatformMalformedError: The response cannot be read. Retryable, since a replica may lag behind right after
                the submit.
        """
        call = self._result_call(export, operation_id)
        result = _unwrapped(await self._send(call))
        stage = storable_text(result.get("stage"), _TEXT_MAX_CHARS) if isinstance(result, dict) else None
        if stage is None:
            raise PlatformMalformedError(f"{call}: the response has no stage{self._excerpt(result)}")
        if state_of(stage) == _FINISH:
            return Ready(stage, remote_files(str(call), result.get("uris")))
        if state_of(stage) == _ERROR:
            return OperationFailed(stage, f"the platform's job ended in ERROR{self._excerpt(result)}")
        return Pending(stage)

    @asynccontextmanager
    async def open_result(
        self,
        export: ExportKind,  # noqa: ARG002 - the protocol's argument
        file: RemoteFile,
    ) -> AsyncIterator[Download]:
        """Opens one file. Its URI is already percent-encoded and is sent unchanged; see `Downloader.open`."""
        async with self._downloader.open(self._url(file), file.name) as download:
            yield UserListDownload(download, self._settings.id_column, self._redactor)

    @asynccontextmanager
    async def resume_result(
        self,
        export: ExportKind,  # noqa: ARG002 - the protocol's argument
        file: RemoteFile,
        resume_point: ResumePoint,
    ) -> AsyncIterator[Versioned]:
        """Opens one file at the resume point if the server supports ranges, which no document mentions."""
        async with self._downloader.open(self._url(file), file.name, resume_point) as download:
            # The bytes before the resume point were checked when they were read.
            is_rest = download.offset_bytes > 0
            yield download if is_rest else UserListDownload(download, self._settings.id_column, self._redactor)

    def _url(self, file: RemoteFile) -> URL:
        return self._client.url("/download?file=" + file.uri)

    async def catalog(self, resource: str, project: str | None) -> list[dict[str, Any]]:
        """Lists all pages of one resource. Without a project, the resource `tags` lists the tags of the data centre.

        Raises:
            InvalidRequestError: The resource is unknown; or `project` is missing, not used, or not an id.
            PlatformError: The platform did not give a usable response.
        """
        operation = _listing(resource, project)
        if operation is PROJECTS:
            call = _listing_call(operation, {})
            return _page(call, await self._send(call))[0]
        return await self._pages(operation, {"project_ID": project})

    async def preview(self, export: ExportKind) -> Preview:
        """Looks up the segment profile or tag of an export, and the number of its users."""
        entity = entity_of(export)
        if entity is None:
            raise PlatformRefusedError(f"a connection to growingio-rest cannot export {export.kind}")
        found = look_up(await self.catalog(entity.resource, entity.project), "key", entity.key)
        name, arguments = entity.users
        try:
            page = await self.call(OPERATIONS[name], arguments, None)
        except PlatformRefusedError:
            # Not every token may read users page by page. The export is another call.
            return found
        return found.model_copy(update={"users": users_of(_unwrapped(page))})

    async def check(self) -> str:
        """Requests the result of a job that cannot exist: the one call that every version's document describes.

        The platform refuses a bad token first. With a good token it reports the unknown job, which is ignored here.

        Raises:
            PlatformError: The platform refused the token, or did not give a usable response.
        """
        call = Call("GET", RESULT_PATH.replace("{id}", _NO_JOB))
        try:
            await self._send(call)
        except (PlatformRefusedError, PlatformUnclearError):
            pass
        except PlatformMalformedError as error:
            if _PLAIN_ERROR not in str(error):
                raise
        return "the token is not refused"

    async def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        body: AsyncIterator[bytes] | None,  # noqa: ARG002 - the protocol's argument
    ) -> Any:
        """Makes one call of the table.

        Raises:
            InvalidRequestError: An argument exceeds a limit of the platform.
            PlatformError: The platform did not give a usable response.
        """
        return await self._send(_listing_call(operation, arguments, self._settings.space_id))

    async def close(self) -> None:
        """Closes connections."""
        await self._auth.close()
        await self._client.close()

    async def _send(self, call: Call) -> Any:
        try:
            return await self._client.call(call, self._auth)
        except (PlatformMalformedError, PlatformUnavailableError) as error:
            if _PLAIN_ERROR not in str(error):
                raise
            hint = "GrowingIO gives the same response for an unknown project, segment or tag"
            kind = PlatformUnclearError if isinstance(error, PlatformUnavailableError) else PlatformMalformedError
            raise kind(f"{error} ({hint})", retry_after_s=error.retry_after_s, unclear=error.unclear) from None

    def _result_call(self, export: ExportKind, operation_id: str) -> Call:
        project_id = getattr(export, "project_id", None)
        path = self._settings.result_path_of(project_id)
        path = path.replace("{project_id}", project_id or "")
        return Call("GET", path.replace("{id}", quote(operation_id, safe="")))

    async def _pages(self, operation: Operation, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        previous: list[dict[str, Any]] = []
        limit = ListingLimit(operation.name)
        while True:
            page_arguments = {**arguments, "limit": PAGE_MAX, "offset": len(items)}
            call = _listing_call(operation, page_arguments, self._settings.space_id)
            page, more = _page(call, await self._send(call))
            if page and page == previous:
                raise PlatformMalformedError(f"{call}: two pages in a row are the same")
            limit.add(page)
            items += page
            if not more or not page:
                return items
            previous = page

    def _excerpt(self, response: Any) -> str:
        """Returns an excerpt of the response, as the end of a message."""
        return f": {one_line(json.dumps(response, ensure_ascii=False), self._redactor)}"


def _submission(export: ExportKind) -> tuple[Operation, dict[str, Any]]:
    """Returns the call for an export, with the arguments that are given."""
    match export:
        case GrowingioSegmentProfileUsers():
            operation, key = EXPORT_SEGMENT, {"segment_key": export.segment_key}
        case GrowingioUserTagUsers():
            operation, key = _tag_export(export), {"tag_key": export.tag_key}
        case _:
            raise PlatformRefusedError(f"a connection to growingio-rest cannot export {export.kind}")
    return operation, {
        **key,
        "project_ID": export.project_id,
        "properties": export.properties,
        "fileFormat": export.file_format,
        "csvHeaderType": export.csv_header_type,
    }


def _tag_export(export: GrowingioUserTagUsers) -> Operation:
    if export.project_id is None:
        return EXPORT_DC_TAG
    return EXPORT_PROJECT_TAG if export.in_space is False else EXPORT_TAG


def _listing_call(operation: Operation, arguments: Mapping[str, Any], space_id: str | None = None) -> Call:
    return replace(call_of(operation, arguments, space_id), is_listing=True)


def _listing(resource: str, project: str | None) -> Operation:
    """Returns the call that lists the resource."""
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
        case "project-tags", None:
            raise InvalidRequestError([FieldProblem("project", "is required to list project-tags")])
        case "project-tags", _:
            return PROJECT_USER_TAGS
        case _:
            known = ", ".join(GrowingioRestDriver.resources)
            raise InvalidRequestError([FieldProblem("resource", f"must be one of {known}")])


def _unwrapped(response: Any) -> Any:
    """Returns the response without the list of one item around it, which GrowingIO's GraphQL reference shows."""
    return response[0] if isinstance(response, list) and len(response) == 1 else response


def _page(call: Call, response: Any) -> tuple[list[dict[str, Any]], bool]:
    """Returns the items of a page, and whether there are more pages.

    If the response does not say whether there are more, a full page counts as not the last one.
    """
    match response:
        case {"values": items} | [{"values": items}]:
            envelope = _unwrapped(response)
        case [list(items)]:
            envelope = {}
        case items:
            envelope = {}
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise PlatformMalformedError(f"{call}: the response is no list of objects")
    return items, bool(envelope.get("hasNextPage", len(items) >= PAGE_MAX))
