"""The driver of GrowingIO OP ("CDP") over GraphQL: exports of tags, segments and analyses, the catalog, other calls."""

import posixpath
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any
from urllib.parse import quote

from yarl import URL

from export_worker.contract.dry_run import Preview
from export_worker.contract.request import ExportKind, GrowingioAnalysis, GrowingioSegmentUsers, GrowingioTagUsers
from export_worker.credentials import Redactor
from export_worker.errors import (
    FieldProblem,
    InvalidRequestError,
    OperationFailedError,
    PlatformMalformedError,
    PlatformRefusedError,
)
from export_worker.lifecycle.observations import (
    OperationFailed,
    Pending,
    Polled,
    Ready,
    RemoteFile,
    Submitted,
    check_file_count,
)
from export_worker.platforms.base import Download, ResumePoint, Versioned
from export_worker.platforms.growingio.entities import entity_of, preview_of
from export_worker.platforms.growingio.operations import DOCUMENT_OF, OPERATIONS
from export_worker.platforms.growingio.queries import (
    JOB_RESULT,
    LISTINGS,
    SUBMIT_ANALYSIS,
    SUBMIT_SEGMENT,
    SUBMIT_TAG,
    SUBMIT_TAG_BY_KEY,
    SUBMIT_TAG_NAMED,
)
from export_worker.platforms.growingio.settings import GrowingioSettings, growingio_auth
from export_worker.platforms.http.client import SUBMIT_TIMEOUT_S, HttpClient
from export_worker.platforms.http.downloads import Downloader
from export_worker.platforms.http.graphql import Document, GraphQL
from export_worker.platforms.http.responses import one_line, storable_text
from export_worker.platforms.http.values import id_text, state_of
from export_worker.platforms.operations import Operation
from export_worker.platforms.settings import ConnectionSettings, platform_settings

_FINISH = "FINISH"
_ERROR = "ERROR"
"""The only terminal stages. DATA_READY is not terminal. There are stages that no document names: the SDK shows one."""

_TEXT_MAX_CHARS = 4096
"""Limit of an id, a stage or a URI. All three are stored in Redis; real ones have at most a few hundred characters."""

_NAMES_BY_KEY = (SUBMIT_TAG_BY_KEY.field, "TagUserExportJobByKeyInput")

_HASH_ID = re.compile(r"[A-Za-z0-9]{8}")


class GrowingioDriver:
    """Implements `Driver`, `Resuming`, `Catalog`, `Previewing` and `Operations`. Can be built outside of an event loop.

    Args:
        name: Name of the connection.
        settings: The connection's section of the configuration.
        redactor: Receives the connection's secrets, and every token that is fetched later.

    Raises:
        ConfigError: An option is unknown or wrong, or a secret cannot be read. The message names
            `connections.<name>.<option>`.
    """

    resources: Sequence[str] = tuple(LISTINGS)
    operations: Mapping[str, Operation] = OPERATIONS
    settings_model = GrowingioSettings

    def __init__(self, name: str, settings: ConnectionSettings, redactor: Redactor) -> None:
        own = platform_settings(name, settings, self.settings_model)
        self._redactor = redactor
        self._client = HttpClient.for_connection(name, own, redactor)
        self._auth = growingio_auth(name, own, self._client)
        self._graphql = GraphQL(self._client, self._auth)
        self._downloader = Downloader(self._client, self._auth, own.allow_hosts, own.file_content_types)

    async def submit(self, export: ExportKind) -> Submitted:
        """Starts the job. Its id is opaque. The `id` in a `jobResult` response is a different one and is not used.

        An `error` object with any other stage than ERROR is no failure: a public sample shows an empty one with FINISH.

        Raises:
            OperationFailedError: The job ended in ERROR at once. This response states the reason; a `jobResult`
                response does not.
            PlatformError: The platform did not give a usable response.
        """
        document, variables = _submission(await self._with_segment_id(export))
        with _hinting_at_tag_id(document):
            data = await self._graphql.execute(
                document,
                variables,
                is_sufficient=lambda data: _operation_id(data.get(document.field)) is not None,
                timeout_s=SUBMIT_TIMEOUT_S,
            )
        job = data.get(document.field)
        operation_id = _operation_id(job)
        if operation_id is None:
            raise PlatformMalformedError(f"{document.name}: the response has no job id", unclear=True)
        stage = _stage(job)
        if state_of(stage) == _ERROR:
            raise OperationFailedError(self._job_error(document, job))
        return Submitted(operation_id, stage, done=state_of(stage) == _FINISH)

    async def _with_segment_id(self, export: ExportKind) -> ExportKind:
        """Returns the export with the id of its segment, if the request has only the segment's name."""
        if not isinstance(export, GrowingioSegmentUsers) or export.segment_id is not None:
            return export
        try:
            preview = await self.preview(export)
        except InvalidRequestError as error:
            raise PlatformRefusedError(str(error)) from None
        return export.model_copy(update={"segment_id": preview.ids["segment_id"]})

    async def preview(self, export: ExportKind) -> Preview:
        """Looks up the tag, segment or analysis of an export; see `preview_of`."""
        entity = entity_of(export)
        if entity is None:
            raise PlatformRefusedError(f"a connection to growingio cannot export {export.kind}")
        return preview_of(entity, await self.catalog(entity.resource, entity.project), self._redactor)

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:  # noqa: ARG002 - the protocol's argument
        """Queries `jobResult` once. A response with all that the poll needs is used, also if it has unrelated errors.

        Raises:
            PlatformMalformedError: The platform does not know the id, or its response cannot be read. Retryable, since
                a replica may lag behind right after the submit. An id that stays unknown uses up the attempts.
        """
        data = await self._graphql.execute(JOB_RESULT, {"id": operation_id}, is_sufficient=_has_result)
        result = data.get(JOB_RESULT.field)
        if result is None:
            job = one_line(operation_id, self._redactor)
            raise PlatformMalformedError(f"{JOB_RESULT.name}: the platform does not know the job {job}")
        stage = _stage(result)
        if stage is None:
            raise PlatformMalformedError(f"{JOB_RESULT.name}: the response has no stage")
        if state_of(stage) == _FINISH:
            return Ready(stage, _files(result.get("uris")))
        if state_of(stage) == _ERROR:
            return OperationFailed(stage, "the platform's job ended in ERROR; the platform states no reason")
        return Pending(stage)

    def open_result(
        self,
        export: ExportKind,  # noqa: ARG002 - the protocol's argument
        file: RemoteFile,
    ) -> AbstractAsyncContextManager[Download]:
        """Opens one file. Its URI is not encoded, so it is encoded here, once. See `Downloader.open` for errors."""
        return self._downloader.open(self._url(file), file.name)

    def resume_result(
        self,
        export: ExportKind,  # noqa: ARG002 - the protocol's argument
        file: RemoteFile,
        resume_point: ResumePoint,
    ) -> AbstractAsyncContextManager[Versioned]:
        """Opens one file at the resume point if the server supports ranges, which no document mentions."""
        return self._downloader.open(self._url(file), file.name, resume_point)

    def _url(self, file: RemoteFile) -> URL:
        return self._client.url("/download?file=" + quote(file.uri, safe="/"))

    async def catalog(self, resource: str, project: str | None) -> list[dict[str, Any]]:
        """Lists one resource. Without a project, the resource `tags` lists the tags of all projects.

        Raises:
            InvalidRequestError: The resource is unknown; or `project` is missing, not used, or not an id.
            PlatformError: The platform did not give a usable response.
        """
        document = _listing(resource, project)
        variables = {} if project is None else {"projectId": project}
        data = await self._graphql.execute(document, variables, is_listing=True)
        if document.field not in data:
            raise PlatformMalformedError(f"{document.name}: the response has no {document.field}")
        items = data[document.field]
        if items is None:
            return []
        if not isinstance(items, list) or not all(isinstance(item, dict | None) for item in items):
            raise PlatformMalformedError(f"{document.name}: the response is no list of objects")
        return [item for item in items if item is not None]

    async def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        body: AsyncIterator[bytes] | None,  # noqa: ARG002 - the protocol's argument
    ) -> Any:
        """Makes one call of the table; arguments are sent as the document's variables.

        Raises:
            PlatformError: The platform did not give a usable response.
        """
        document = DOCUMENT_OF[operation.name]
        data = await self._graphql.execute(document, arguments, is_listing=True)
        if document.field not in data:
            raise PlatformMalformedError(f"{document.name}: the response has no {document.field}")
        return data[document.field]

    async def close(self) -> None:
        """Closes connections."""
        await self._auth.close()
        await self._client.close()

    def _job_error(self, document: Document, job: Any) -> str:
        """Returns the message for a job that failed at once, with the platform's reason."""
        error = job.get("error")
        parts = [error.get("code"), error.get("message")] if isinstance(error, dict) else []
        reason = one_line(": ".join(str(part) for part in parts if part), self._redactor)
        return f"{document.name}: the job ended in ERROR at once: {reason or 'the platform states no reason'}"


def _submission(export: ExportKind) -> tuple[Document, dict[str, Any]]:
    """Returns the mutation for an export, with the variables that are given."""
    match export:
        case GrowingioTagUsers(tag_key=None):
            document = SUBMIT_TAG if export.file_name is None else SUBMIT_TAG_NAMED
            return document, _given({"tagId": export.tag_id, **_tag_options(export)})
        case GrowingioTagUsers():
            parameter = _given({"tagKey": export.tag_key, **_tag_options(export)})
            return SUBMIT_TAG_BY_KEY, {"parameter": parameter}
        case GrowingioSegmentUsers():
            return SUBMIT_SEGMENT, _given(
                {
                    "projectId": export.project_id,
                    "segmentId": export.segment_id,
                    "tags": export.tags,
                    "properties": export.properties,
                    "charset": export.charset,
                }
            )
        case GrowingioAnalysis():
            return SUBMIT_ANALYSIS, _given(
                {
                    "projectId": export.project_id,
                    "id": export.analysis_id,
                    "param": {"analysisType": export.analysis_type},
                    "charset": export.charset,
                }
            )
        case _:
            raise PlatformRefusedError(f"a connection to growingio cannot export {export.kind}")


def _tag_options(export: GrowingioTagUsers) -> dict[str, Any]:
    return {
        "exportFileName": export.file_name,
        "properties": export.properties,
        "charset": export.charset,
        "detailExport": export.detail_export,
    }


def _given(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in variables.items() if value is not None}


def _listing(resource: str, project: str | None) -> Document:
    """Returns the document that lists the resource, for one project or for all."""
    listing = LISTINGS.get(resource)
    if listing is None:
        raise InvalidRequestError([FieldProblem("resource", f"must be one of {', '.join(LISTINGS)}")])
    if project is not None and not _HASH_ID.fullmatch(project):
        raise InvalidRequestError([FieldProblem("project", "must be 8 letters or digits, such as WlGk4Daj")])
    document = listing.of_all if project is None else listing.of_project
    if document is None:
        message = f"is required to list {resource}" if project is None else f"is not used to list {resource}"
        raise InvalidRequestError([FieldProblem("project", message)])
    return document


@contextmanager
def _hinting_at_tag_id(document: Document) -> Iterator[None]:
    """Adds a hint to the refusal of a deployment that cannot export a tag by its key."""
    try:
        yield
    except PlatformRefusedError as error:
        # A refused document is quoted with its field, or with the type of its argument.
        if document is SUBMIT_TAG_BY_KEY and any(name in str(error) for name in _NAMES_BY_KEY):
            hint = "GrowingIO offers it from version 13.4; export this tag by its tag_id, which the catalog of tags has"
            error.args = (f"{error} ({hint})",)
        raise


def _operation_id(job: Any) -> str | None:
    return id_text(job.get("id"), _TEXT_MAX_CHARS) if isinstance(job, dict) else None


def _stage(job: Any) -> str | None:
    return storable_text(job.get("stage"), _TEXT_MAX_CHARS) if isinstance(job, dict) else None


def _has_result(data: Mapping[str, Any]) -> bool:
    """Returns whether the data of a poll has the stage and, if the job has finished, its files."""
    result = data.get(JOB_RESULT.field)
    stage = _stage(result)
    if state_of(stage) != _FINISH:
        return stage is not None
    uris = result.get("uris") if isinstance(result, dict) else None
    return isinstance(uris, list) and bool(uris) and None not in uris


def _files(uris: Any) -> tuple[RemoteFile, ...]:
    """Returns the files that a finished job lists; none when it lists none yet."""
    if not isinstance(uris, list | None):
        raise PlatformMalformedError(f"{JOB_RESULT.name}: uris is no list")
    check_file_count(len(uris or ()))
    return tuple(map(_file, uris or ()))


def _file(uri: Any) -> RemoteFile:
    """Returns one file. The URI is not encoded, so its base name is not decoded: `%41` in a title stays `%41`.

    The document's samples begin with a slash. The URI is sent unchanged also without one.
    """
    text = storable_text(uri, _TEXT_MAX_CHARS)
    name = posixpath.basename(text or "")
    if text is None or "://" in text or not name.strip():
        raise PlatformMalformedError(f"{JOB_RESULT.name}: a uri is no path of a file")
    return RemoteFile(uri=text, name=name)
