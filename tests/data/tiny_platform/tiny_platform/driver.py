"""The driver: the only module that knows the platform's API."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import quote

from pydantic import ConfigDict, SecretStr

from export_worker.errors import FieldProblem, InvalidRequestError, PlatformMalformedError, PlatformRefusedError
from export_worker.platforms import (
    UPLOAD_TIMEOUT_S,
    Call,
    ConnectionSettings,
    Download,
    Downloader,
    ExportKind,
    HttpClient,
    Operation,
    OperationFailed,
    Parameter,
    Pending,
    Polled,
    Ready,
    Redactor,
    RemoteFile,
    Secret,
    SecretAuth,
    Submitted,
    authorization,
    check_header_value,
    platform_settings,
    reading_answer,
    storable_text,
)
from tiny_platform.kinds import TinyListUsers

TEXT_MAX_CHARS = 256
"""Limit of an id, a state or a path: all of them are stored in Redis."""

_NAME = Parameter("name", "text", "path", required=True, max_chars=24, pattern="[a-z]+", about="name of the list")

OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation(
            "add",
            "POST",
            "/tiny/lists",
            "create a list from a rule",
            (
                Parameter("name", "text", "json", required=True, max_chars=24, pattern="[a-z]+"),
                Parameter("rule", "object", "json"),
            ),
            body="json",
        ),
        Operation("upload", "POST", "/tiny/lists/{name}/users", "upload the ids of a list", (_NAME,), body="csv"),
        Operation("delete", "DELETE", "/tiny/lists/{name}", "delete a list", (_NAME,), aliases=("drop",), deletes=True),
    )
}


class TinySettings(ConnectionSettings):
    """The settings that every connection has, and no others: a misspelt option is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TinyDriver:
    """Implements `Driver`, `Cancelling`, `Catalog`, `Configured` and `Operations`."""

    resources: Sequence[str] = ("segments",)
    operations: Mapping[str, Operation] = OPERATIONS
    settings_model = TinySettings

    def __init__(self, name: str, settings: ConnectionSettings, redactor: Redactor) -> None:
        own = platform_settings(name, settings, TinySettings)
        token = Secret(own.token or SecretStr(""), f"connections.{name}.token", redactor).must(check_header_value)
        self._client = HttpClient.for_connection(name, own, redactor)
        self._auth = SecretAuth([token], lambda value: authorization("Bearer", value))
        self._downloader = Downloader(self._client, self._auth, own.allow_hosts, own.file_content_types)

    async def submit(self, export: ExportKind) -> Submitted:
        """Starts a job."""
        if not isinstance(export, TinyListUsers):
            raise PlatformRefusedError(f"a connection to tiny cannot export {export.kind}")
        call = Call("POST", "/tiny/jobs", json={"list": export.list_name}, starts_work=True)
        response = await self._send(call)
        with reading_answer(starts_work=True):
            return Submitted(_text(response, "job"))

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Requests the state of a job once."""
        response = await self._send(Call("GET", _job_path(operation_id)))
        match state := _text(response, "state"):
            case "done":
                path = _text(response, "file")
                return Ready(state, (RemoteFile(uri=path, name=path.rpartition("/")[2]),))
            case "failed":
                return OperationFailed(state, "the platform's job failed")
            case _:
                return Pending(state)

    async def cancel(self, export: ExportKind, operation_id: str) -> None:
        """Cancels a job."""
        await self._send(Call("DELETE", _job_path(operation_id)))

    def open_result(self, export: ExportKind, file: RemoteFile) -> AbstractAsyncContextManager[Download]:
        """Opens the file."""
        return self._downloader.open(self._client.url(file.uri), file.name)

    async def catalog(self, resource: str, project: str | None) -> list[dict[str, Any]]:
        """Lists the lists of users."""
        if resource not in self.resources:
            raise InvalidRequestError([FieldProblem("resource", f"must be one of {', '.join(self.resources)}")])
        response = await self._send(Call("GET", "/tiny/lists"))
        if not isinstance(response, list):
            raise PlatformMalformedError("GET /tiny/lists: the response is no list")
        return response

    async def call(self, operation: Operation, arguments: Mapping[str, Any], body: AsyncIterator[bytes] | None) -> Any:
        """Makes one of the other calls."""
        path = operation.path.format_map(arguments)
        if body is not None:
            return await self._send(
                Call(operation.method, path, data=body, content_type="text/csv", timeout_s=UPLOAD_TIMEOUT_S)
            )
        fields = {item.name: arguments[item.name] for item in operation.parameters if item.name in arguments}
        return await self._send(Call(operation.method, path, json=fields if operation.body == "json" else None))

    async def close(self) -> None:
        """Closes connections."""
        await self._client.close()

    async def _send(self, call: Call) -> Any:
        return await self._client.call(call, self._auth)


def _job_path(operation_id: str) -> str:
    """Returns the path of a job. An operation id may contain any character, so it is encoded."""
    return f"/tiny/jobs/{quote(operation_id, safe='')}"


def _text(response: Any, field: str) -> str:
    """Returns a text field of the response."""
    value = storable_text(response.get(field), TEXT_MAX_CHARS) if isinstance(response, dict) else None
    if value is None:
        raise PlatformMalformedError(f"the response has no usable {field}")
    return value
