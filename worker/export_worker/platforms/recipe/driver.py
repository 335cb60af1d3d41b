"""The driver that runs recipes: it submits, polls and downloads as the recipe of the connection describes."""

import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from yarl import URL

from export_worker.contract.request import ExportKind
from export_worker.credentials import Redactor
from export_worker.errors import (
    ErrorCode,
    FieldProblem,
    InvalidRequestError,
    PlatformMalformedError,
    PlatformNotFoundError,
    PlatformRefusedError,
    ResultMissingError,
    StepError,
)
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile, Submitted
from export_worker.platforms.base import Download, ResumePoint, Versioned
from export_worker.platforms.http.auths import build_auth
from export_worker.platforms.http.client import SUBMIT_TIMEOUT_S, HttpClient
from export_worker.platforms.http.downloads import Downloader
from export_worker.platforms.http.responses import one_line, reading_answer, storable_text
from export_worker.platforms.http.urls import with_query
from export_worker.platforms.recipe.api import RecipeApi
from export_worker.platforms.recipe.auth import RecipeSecrets, filled_auth
from export_worker.platforms.recipe.cool_down import CoolDown
from export_worker.platforms.recipe.links import (
    Links,
    NoLinkError,
    link_of,
    link_with,
    links_in,
    name_of_link,
    packed_name,
    unpacked_name,
)
from export_worker.platforms.recipe.listing import PagedRequest, found_in, listed
from export_worker.platforms.recipe.operations import (
    Operation,
    file_of,
    operation_id,
    parse_file,
    parse_operation,
    read_operation,
)
from export_worker.platforms.recipe.paged import PagedFile
from export_worker.platforms.recipe.requests import Document, call_of, headers_of, link_request, path_of, query_of
from export_worker.platforms.recipe.sealing import Seal
from export_worker.platforms.recipe.settings import RecipeSettings, recipe_settings
from export_worker.platforms.recipe.unpacking import Unpacked
from export_worker.platforms.settings import ConnectionSettings
from export_worker.recipes.model import KindSpec, Poll, Request
from export_worker.recipes.templates import TemplateError, as_text, template

STAGE_MAX_CHARS = 256
"""Of a stage, which is stored in Redis. Real ones have a dozen characters."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A job, and what its requests need.

    Args:
        kind: The part of the recipe.
        text: The operation id.
        operation: What the operation id carries.
        document: The values that templates name.
    """

    kind: KindSpec
    text: str
    operation: Operation
    document: Document

    @property
    def key(self) -> str:
        """Distinguishes the job from those of other kinds and fields, also if the API gives them the same id."""
        return json.dumps([self.text, self.document], sort_keys=True, default=str)


class ResultEmptyError(StepError):
    """The operation succeeded, and the platform says that its result is empty. No later poll names a file."""

    code = ErrorCode.RESULT_EMPTY


class RecipeDriver:
    """Implements `Driver`, `Resuming`, `Cancelling`, `Discarding` and `Catalog`. Can be built outside of an event loop.

    Args:
        name: Name of the connection.
        settings: The connection's section of the configuration.
        redactor: Receives the connection's secrets.

    Raises:
        ConfigError: The recipe or an option is wrong, or a secret cannot be read. The message names the setting.
    """

    settings_model = RecipeSettings

    def __init__(self, name: str, settings: ConnectionSettings, redactor: Redactor) -> None:
        own, self._recipe = recipe_settings(name, settings)
        self._options = own.options
        self._client = HttpClient.for_connection(name, own, redactor)
        self._secrets = secrets = RecipeSecrets(name, own, self._options, redactor)
        self._auth = build_auth(filled_auth(self._recipe.auth, self._options), secrets.of, self._client)
        self._api = RecipeApi(self._client, self._auth, self._recipe.errors)
        hosts = (*own.allow_hosts, *self._recipe.hosts)
        self._downloader = Downloader(self._client, self._auth, hosts, own.file_content_types)
        self._seal = Seal(secrets.texts)
        self._links = Links()
        self._cool_down = CoolDown(self._recipe.limits.cool_down_s)
        self.resources: Sequence[str] = tuple(self._recipe.catalog)

    async def submit(self, export: ExportKind) -> Submitted:
        """Starts the job.

        Raises:
            PlatformError: The API did not give a usable answer.
            PlatformPausedError: A job has failed, and the recipe waits before it starts another one.
        """
        kind = self._kind(export)
        self._cool_down.check()
        call = call_of(kind.submit, self._recipe.headers, self._document(export))
        call = replace(call, starts_work=True, timeout_s=SUBMIT_TIMEOUT_S)
        self._seal.use(await self._secrets.current_texts())
        answer = await self._api.answer(call)
        with reading_answer(starts_work=True):
            operation = read_operation(kind, answer)
        return Submitted(operation_id(operation, self._seal), done=kind.poll is None and not kind.result.later)

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Asks for the state of the job once.

        Raises:
            PlatformError: The API did not give a usable answer.
            ResultEmptyError: The state is one of `no_data`.
        """
        job = await self._job(export, operation_id)
        poll = job.kind.poll
        if poll is None:
            return await self._poll_of_link(job) if job.kind.result.later else Ready(None, await self._files(job, None))
        answer = await self._api.answer(self._call(poll, job))
        stage = _stage(poll, answer)
        if stage in poll.done:
            return Ready(stage, await self._files(job, answer))
        if stage in poll.no_data:
            raise ResultEmptyError(f"the API's job has ended with the state {stage}: there is no data to export")
        if stage in poll.failed:
            self._cool_down.start()
            return OperationFailed(stage, self._reason(poll, answer))
        return Pending(stage, _percent(poll, answer))

    async def _poll_of_link(self, job: _Job) -> Polled:
        """Requests the head of each file, which the API writes after it has returned the links."""
        files = await self._files(job, None)
        try:
            for number, file in enumerate(files, 1):
                link = link_with(await self._kept_links(job), number)
                async with self._downloader.open(link, file.name):
                    pass
        except ResultMissingError:
            return Pending(None)
        return Ready(None, files)

    async def _kept_links(self, job: _Job) -> Sequence[URL]:
        return await self._links.of(job.key, job.kind.result.expires_s, lambda: self._links_asked_again(job))

    async def _links_asked_again(self, job: _Job) -> Sequence[URL]:
        """Asks for the links of a job that has had links. If it has none now, it runs again."""
        try:
            return await self._asked_links(job)
        except NoLinkError:
            return ()

    async def _files(self, job: _Job, answer: Any) -> tuple[RemoteFile, ...]:
        """Returns the files of a job that has succeeded.

        Args:
            answer: The answer to the poll.
        """
        result = job.kind.result
        if result.links is None:
            return (file_of(job.text, 1, self._name(job, 1, "")),)
        links = await self._asked_links(job, answer)
        self._links.keep(job.key, links)
        numbered = enumerate(links, 1)
        return tuple(file_of(job.text, number, self._name(job, number, name_of_link(link, number)))
                     for number, link in numbered)  # fmt: skip

    def _name(self, job: _Job, number: int, name: str) -> str:
        """Returns the name of a file. Args: name: That of its link."""
        result = job.kind.result
        if result.name is not None:
            try:
                name = template(result.name).text({**job.document, "number": number})
            except TemplateError as error:
                raise PlatformRefusedError(f"result.name: {error}") from None
        return unpacked_name(name) if result.unpack else name

    async def _asked_links(self, job: _Job, answer: Any = None) -> Sequence[URL]:
        """Asks the API for the links of a job. Args: answer: That to the poll, if there is one already."""
        result, poll = job.kind.result, job.kind.poll
        if result.path is not None:
            answer = await self._api.answer(self._call(link_request(job.kind), job))
        elif poll is None:
            return [self._sealed_link(job)]
        elif answer is None:
            answer = await self._api.answer(self._call(poll, job))
            if _stage(poll, answer) not in poll.done:
                return []  # the job runs again, so the next poll finds new links
        return links_in(result.links or "", answer, self._client)

    def _sealed_link(self, job: _Job) -> URL:
        return link_of(job.operation.link, self._client)

    @asynccontextmanager
    async def open_result(self, export: ExportKind, file: RemoteFile) -> AsyncIterator[Download]:
        """Opens one file. A link that has expired, or that the server refuses, is asked for again."""
        operation, number = parse_file(file)
        job = await self._job(export, operation)
        async with AsyncExitStack() as stack:
            yield await self._opened(stack, job, file.name, number)

    @asynccontextmanager
    async def resume_result(
        self, export: ExportKind, file: RemoteFile, resume_point: ResumePoint
    ) -> AsyncIterator[Versioned]:
        """Opens one file at the resume point if the server supports ranges and the file is not changed on its way."""
        operation, number = parse_file(file)
        job = await self._job(export, operation)
        async with AsyncExitStack() as stack:
            yield await self._opened(stack, job, file.name, number, resume_point)

    async def _opened(
        self, stack: AsyncExitStack, job: _Job, name: str, number: int, resume_point: ResumePoint | None = None
    ) -> Any:
        result = job.kind.result
        if result.pages is not None:
            request = PagedRequest(result.pages, self._recipe.headers, job.document)
            return PagedFile(self._api, request, result.pages)
        if result.unpack:
            download = await self._entered(stack, job, name, number, None)
            return Unpacked(download, name)
        return await self._entered(stack, job, name, number, resume_point)

    async def _entered(
        self, stack: AsyncExitStack, job: _Job, name: str, number: int, resume_point: ResumePoint | None
    ) -> Versioned:
        result = job.kind.result
        if result.links is None:
            url, headers = self._file_request(job)
            return await stack.enter_async_context(self._downloader.open(url, name, resume_point, headers=headers))
        for is_last in (False, True):
            links = await self._kept_links(job)
            try:
                link = link_with(links, number)
                opening = self._downloader.open(link, packed_name(link, name) if result.unpack else name, resume_point)
                return await stack.enter_async_context(opening)
            except ResultMissingError:
                self._links.forget(job.key)
                if is_last:
                    raise
        raise AssertionError("the loop returns or raises")

    def _file_request(self, job: _Job) -> tuple[URL, Mapping[str, str]]:
        result = job.kind.result
        try:
            path, query = path_of(result.path or "", job.document), query_of(result.query, job.document)
            headers = headers_of({**self._recipe.headers, **result.headers}, job.document)
        except TemplateError as error:
            raise PlatformRefusedError(f"result: {error}") from None
        return with_query(self._client.url(path), query), headers

    async def cancel(self, export: ExportKind, operation_id: str) -> bool:
        """Cancels the job. Returns False if the recipe has no request for it."""
        job = await self._job(export, operation_id)
        if job.kind.cancel is None:
            return False
        await self._api.response(self._call(job.kind.cancel, job))
        return True

    async def discard(self, export: ExportKind, operation_id: str) -> None:
        """Deletes the result at the API, if the recipe has a request for it."""
        job = await self._job(export, operation_id)
        if job.kind.delete is not None:
            await self._api.response(self._call(job.kind.delete, job))

    async def catalog(self, resource: str, project: str | None) -> list[dict[str, Any]]:
        """Lists all pages of one resource.

        Raises:
            InvalidRequestError: The resource is unknown.
            PlatformError: The API did not give a usable answer.
        """
        listing = self._recipe.catalog.get(resource)
        if listing is None:
            known = ", ".join(self.resources) or "none"
            raise InvalidRequestError([FieldProblem("resource", f"must be one of {known}")])
        document = {"options": self._options, "project": project}
        return await listed(self._api, resource, PagedRequest(listing, self._recipe.headers, document))

    async def close(self) -> None:
        """Closes connections."""
        await self._auth.close()
        await self._client.close()

    def _kind(self, export: ExportKind) -> KindSpec:
        recipe, _, name = export.kind.partition(".")
        kind = self._recipe.kinds.get(name) if recipe == self._recipe.name else None
        if kind is None:
            raise PlatformRefusedError(f"a connection with the recipe {self._recipe.name} cannot export {export.kind}")
        return kind

    def _document(self, export: ExportKind) -> dict[str, Any]:
        return {**export.model_dump(exclude_none=True), "options": self._options}

    async def _job(self, export: ExportKind, text: str) -> _Job:
        kind = self._kind(export)
        try:
            operation = parse_operation(kind, text, self._seal)
        except PlatformNotFoundError:
            # Another worker may have sealed the link with a secret that was exchanged a moment ago.
            self._seal.use(await self._secrets.current_texts(again=True))
            operation = parse_operation(kind, text, self._seal)
        document = {**self._document(export), "operation_id": operation.id, "keep": operation.keep}
        return _Job(kind, text, operation, document)

    def _call(self, request: Request, job: _Job) -> Any:
        return call_of(request, self._recipe.headers, job.document)

    def _reason(self, poll: Poll, answer: Any) -> str:
        found = None if poll.reason is None else as_text(found_in(poll.reason, answer))
        text = json.dumps(answer, ensure_ascii=False) if found in {None, ""} else found
        return f"the API's job failed: {one_line(text or '', self._client.redactor)}"


def _stage(poll: Poll, answer: Any) -> str:
    stage = storable_text(as_text(found_in(poll.stage, answer)), STAGE_MAX_CHARS)
    if stage is None:
        raise PlatformMalformedError(f"{poll.method} {poll.path}: the answer has no state at {poll.stage}")
    return stage


def _percent(poll: Poll, answer: Any) -> float | None:
    if poll.percent is None:
        return None
    try:
        percent = float(as_text(found_in(poll.percent, answer)) or "nan")
    except ValueError:
        return None
    return percent if math.isfinite(percent) and 0 <= percent <= 100 else None
