"""GrowingIO OP ("CDP") over GraphQL: exports of tags, segments and analyses, and the catalog of what there is."""

import posixpath
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import quote

from yarl import URL

from export_worker.contract.request import ExportKind, GrowingioAnalysis, GrowingioSegmentUsers, GrowingioTagUsers
from export_worker.credentials import Redactor
from export_worker.errors import (
    FieldProblem,
    InvalidRequestError,
    OperationFailedError,
    PlatformMalformedError,
    PlatformRefusedError,
)
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile, Submitted
from export_worker.platforms.base import Download, Mark, Versioned
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
from export_worker.platforms.http.responses import one_line
from export_worker.platforms.operations import Operation
from export_worker.platforms.settings import ConnectionSettings, platform_settings

_FINISH = "FINISH"
_ERROR = "ERROR"
"""These two alone are terminal. DATA_READY is not, and stages that no document names exist (the SDK shows one)."""

_TEXT_MAX_CHARS = 4096
"""Of an id, a stage or a URI: all of them are kept in Redis, and real ones have at most some hundred."""

_HASH_ID = re.compile(r"[A-Za-z0-9]{8}")


class GrowingioDriver:
    """Speaks GrowingIO's GraphQL. Satisfies `Driver`, `Catalog` and `Operations`; may be built outside of a loop.

    Args:
        name: Of the connection.
        redactor: Learns the connection's secrets, and every token that is fetched later.

    Raises:
        ConfigError: An option is unknown or wrong, or a secret cannot be read. Names `connections.<name>.<option>`.
    """

    resources: Sequence[str] = tuple(LISTINGS)
    operations: Mapping[str, Operation] = OPERATIONS

    def __init__(self, name: str, settings: ConnectionSettings, redactor: Redactor) -> None:
        own = platform_settings(name, settings, GrowingioSettings)
        self._redactor = redactor
        self._client = HttpClient(name, own.base_url, redactor, reach=own.reach())
        self._auth = growingio_auth(name, own, self._client)
        self._graphql = GraphQL(self._client, self._auth)
        self._downloader = Downloader(self._client, self._auth, own.allow_hosts)

    async def submit(self, export: ExportKind) -> Submitted:
        """Start the job. Its id is opaque; that of `jobResult` is another and of no use.

        An `error` object beside any stage but ERROR is no failure: a public sample shows an empty one with FINISH.

        Raises:
            OperationFailedError: The job ended in ERROR at once; `jobResult` would not say why, this answer does.
            PlatformError: The platform does not answer as it should.
        """
        document, variables = _submission(export)
        data = await self._graphql.execute(
            document,
            variables,
            enough=lambda data: _operation_id(data.get(document.field)) is not None,
            timeout_s=SUBMIT_TIMEOUT_S,
        )
        job = data.get(document.field)
        operation_id = _operation_id(job)
        if operation_id is None:
            raise PlatformMalformedError(f"{document.name}: the answer has no job id")
        stage = _stage(job)
        if stage == _ERROR:
            raise OperationFailedError(self._job_error(document, job))
        return Submitted(operation_id, stage, done=stage == _FINISH)

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:  # noqa: ARG002 - the protocol's argument
        """Look once at `jobResult`.

        Raises:
            PlatformMalformedError: The platform knows nothing under the id, or its answer cannot be read. Retryable:
                a replica may lag behind right after the submit; an id that stays unknown uses up its attempts.
        """
        data = await self._graphql.execute(JOB_RESULT, {"id": operation_id})
        result = data.get(JOB_RESULT.field)
        if result is None:
            job = one_line(operation_id, self._redactor)
            raise PlatformMalformedError(f"{JOB_RESULT.name}: the platform knows no job {job}")
        stage = _stage(result)
        if stage is None:
            raise PlatformMalformedError(f"{JOB_RESULT.name}: the answer has no stage")
        if stage == _FINISH:
            return Ready(stage, _files(result.get("uris")))
        if stage == _ERROR:
            return OperationFailed(stage, "the platform's job ended in ERROR; it does not say why")
        return Pending(stage)

    def open_result(
        self,
        export: ExportKind,  # noqa: ARG002 - the protocol's argument
        file: RemoteFile,
    ) -> AbstractAsyncContextManager[Download]:
        """Open one file. Its URI is raw, so it is encoded here, once; see `Downloader.open` for errors."""
        return self._downloader.open(self._address(file), file.name)

    def resume_result(
        self,
        export: ExportKind,  # noqa: ARG002 - the protocol's argument
        file: RemoteFile,
        mark: Mark,
    ) -> AbstractAsyncContextManager[Versioned]:
        """Open one file at the mark. No document speaks of ranges, so whether it goes on there is for the server."""
        return self._downloader.open(self._address(file), file.name, mark)

    def _address(self, file: RemoteFile) -> URL:
        return self._client.address("/download?file=" + quote(file.uri, safe="/"))

    async def catalog(self, resource: str, project: str | None) -> list[dict[str, Any]]:
        """List one resource; tags of all projects when none is given.

        Raises:
            InvalidRequestError: No such resource; `project` is missing, too much, or no id.
            PlatformError: The platform does not answer as it should.
        """
        document = _listing(resource, project)
        data = await self._graphql.execute(document, {} if project is None else {"projectId": project})
        items = data.get(document.field)
        if items is None:
            return []
        if not isinstance(items, list) or not all(isinstance(item, dict | None) for item in items):
            raise PlatformMalformedError(f"{document.name}: the answer is no list of objects")
        return [item for item in items if item is not None]

    async def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        body: AsyncIterator[bytes] | None,  # noqa: ARG002 - the protocol's argument
    ) -> Any:
        """Make one call of the table; arguments travel as the document's variables.

        Raises:
            PlatformError: The platform does not answer as it should.
        """
        document = DOCUMENT_OF[operation.name]
        data = await self._graphql.execute(document, arguments)
        return data.get(document.field)

    async def close(self) -> None:
        """Close connections."""
        await self._auth.close()
        await self._client.close()

    def _job_error(self, document: Document, job: Any) -> str:
        """What the platform says of a job that failed at once."""
        error = job.get("error")
        parts = [error.get("code"), error.get("message")] if isinstance(error, dict) else []
        reason = one_line(": ".join(str(part) for part in parts if part), self._redactor)
        return f"{document.name}: the job ended in ERROR at once: {reason or 'the platform does not say why'}"


def _submission(export: ExportKind) -> tuple[Document, dict[str, Any]]:
    """The mutation for an export, with the variables that are given."""
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
    """The document that lists the resource, of one project or of all."""
    listing = LISTINGS.get(resource)
    if listing is None:
        raise InvalidRequestError([FieldProblem("resource", f"must be one of {', '.join(LISTINGS)}")])
    if project is not None and not _HASH_ID.fullmatch(project):
        raise InvalidRequestError([FieldProblem("project", "must be 8 letters or digits")])
    document = listing.of_all if project is None else listing.of_project
    if document is None:
        message = f"is required to list {resource}" if project is None else f"is not used to list {resource}"
        raise InvalidRequestError([FieldProblem("project", message)])
    return document


def _text(value: Any) -> str | None:
    """The value, if it is a text that can be stored and sent again (JSON can carry half a surrogate pair)."""
    if not isinstance(value, str) or not 0 < len(value) <= _TEXT_MAX_CHARS:
        return None
    return None if any("\ud800" <= char <= "\udfff" for char in value) else value


def _operation_id(job: Any) -> str | None:
    return _text(job.get("id")) if isinstance(job, dict) else None


def _stage(job: Any) -> str | None:
    return _text(job.get("stage")) if isinstance(job, dict) else None


def _files(uris: Any) -> tuple[RemoteFile, ...]:
    """The files that a finished job names; none when it names none (yet)."""
    if not isinstance(uris, list | None):
        raise PlatformMalformedError(f"{JOB_RESULT.name}: uris is no list")
    return tuple(map(_file, uris or ()))


def _file(uri: Any) -> RemoteFile:
    """One file. The URI is raw, so its base name needs no decoding: `%41` in a title is just that."""
    text = _text(uri)
    name = posixpath.basename(text or "")
    if text is None or not text.startswith("/") or not name:
        raise PlatformMalformedError(f"{JOB_RESULT.name}: a uri is no absolute path of a file")
    return RemoteFile(uri=text, name=name)
