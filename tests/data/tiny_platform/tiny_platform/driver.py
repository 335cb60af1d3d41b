"""The driver: speaks the platform's words, and only here."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
from pydantic import ConfigDict, SecretStr

from export_worker.contract.request import ExportKind
from export_worker.credentials import Redactor, reveal
from export_worker.errors import FieldProblem, InvalidRequestError, PlatformMalformedError, PlatformRefusedError
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile, Submitted
from export_worker.platforms.base import Download
from export_worker.platforms.http.auth import StaticAuth, authorization, check_header_value
from export_worker.platforms.http.client import Call, HttpClient
from export_worker.platforms.http.downloads import Downloader
from export_worker.platforms.http.responses import HttpResponse, error_for, json_value
from export_worker.platforms.operations import Operation, Parameter
from export_worker.platforms.settings import ConnectionSettings, platform_settings
from tiny_platform.kinds import TinyListUsers

_NAME = Parameter("name", "text", "path", required=True, max_chars=24, pattern="[a-z]+", about="of the list")

OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation(
            "add",
            "POST",
            "/tiny/lists",
            "make a list by a rule",
            (
                Parameter("name", "text", "json", required=True, max_chars=24, pattern="[a-z]+"),
                Parameter("rule", "object", "json"),
            ),
            body="json",
        ),
        Operation("upload", "POST", "/tiny/lists/{name}/users", "fill a list with ids", (_NAME,), body="csv"),
        Operation("delete", "DELETE", "/tiny/lists/{name}", "drop a list", (_NAME,), aliases=("drop",), deletes=True),
    )
}


class TinySettings(ConnectionSettings):
    """Nothing beyond what every connection has; what is misspelt is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TinyDriver:
    """Satisfies `Driver`, `Cancelling`, `Catalog` and `Operations`."""

    resources: Sequence[str] = ("segments",)
    operations: Mapping[str, Operation] = OPERATIONS

    def __init__(self, name: str, settings: ConnectionSettings, redactor: Redactor) -> None:
        own = platform_settings(name, settings, TinySettings)
        setting = f"connections.{name}.token"
        token = check_header_value(reveal(own.token or SecretStr(""), setting), setting)
        redactor.add(token)
        self._client = HttpClient(name, own.base_url, redactor, reach=own.reach())
        self._auth = StaticAuth(authorization("Bearer", token))
        self._downloader = Downloader(self._client, self._auth, own.allow_hosts)

    async def submit(self, export: ExportKind) -> Submitted:
        """Start a job."""
        if not isinstance(export, TinyListUsers):
            raise PlatformRefusedError(f"a connection to tiny cannot export {export.kind}")
        answer = await self._ask(Call("POST", "/tiny/jobs", json={"list": export.list_name}))
        return Submitted(_text(answer, "job"))

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Look once."""
        answer = await self._ask(Call("GET", f"/tiny/jobs/{operation_id}"))
        match state := _text(answer, "state"):
            case "done":
                uri = _text(answer, "file")
                return Ready(state, (RemoteFile(uri, uri.rpartition("/")[2]),))
            case "failed":
                return OperationFailed(state, "the platform's job failed")
            case _:
                return Pending(state)

    async def cancel(self, export: ExportKind, operation_id: str) -> None:
        """Stop a job."""
        await self._ask(Call("DELETE", f"/tiny/jobs/{operation_id}"))

    def open_result(
        self,
        export: ExportKind,
        file: RemoteFile,
    ) -> AbstractAsyncContextManager[Download]:
        """Open the file."""
        return self._downloader.open(self._client.address(file.uri), file.name)

    async def catalog(self, resource: str, project: str | None) -> list[dict[str, Any]]:
        """The lists."""
        if resource not in self.resources:
            raise InvalidRequestError([FieldProblem("resource", f"must be one of {', '.join(self.resources)}")])
        answer = await self._ask(Call("GET", "/tiny/lists"))
        if not isinstance(answer, list):
            raise PlatformMalformedError("GET /tiny/lists: the answer is no list")
        return answer

    async def call(self, operation: Operation, arguments: Mapping[str, Any], body: AsyncIterator[bytes] | None) -> Any:
        """Make one of the other calls."""
        path = operation.path.format_map(arguments)
        if body is not None:
            return await self._upload(path, body)
        fields = {item.name: arguments[item.name] for item in operation.parameters if item.name in arguments}
        return await self._ask(Call(operation.method, path, json=fields if operation.body == "json" else None))

    async def close(self) -> None:
        """Close connections."""
        await self._client.close()

    async def _ask(self, call: Call) -> Any:
        return await self._client.call(call, self._auth)

    async def _upload(self, path: str, body: AsyncIterator[bytes]) -> Any:
        credential = await self._auth.credential()
        headers = {"Content-Type": "text/csv", **credential.headers}
        with self._client.mapped_failures(f"POST {path}"):
            async with (
                aiohttp.ClientSession() as session,
                session.post(self._client.address(path), data=body, headers=headers, allow_redirects=False) as response,
            ):
                answer = HttpResponse(f"POST {path}", response.status, response.headers, await response.read())
        problem = error_for(answer, self._client.redactor)
        if problem is not None:
            raise problem
        return json_value(answer, self._client.redactor)


def _text(answer: Any, field: str) -> str:
    value = answer.get(field) if isinstance(answer, dict) else None
    if not isinstance(value, str) or not value:
        raise PlatformMalformedError(f"the answer has no {field}")
    return value
