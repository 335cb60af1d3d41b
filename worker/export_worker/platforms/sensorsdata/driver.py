"""The driver of Sensors Data: exports of a user group's users through the SQL query API (v2 or v3).

An export computes the group first, unless its request sets `execute` to false.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode

from export_worker.contract.dry_run import Preview
from export_worker.contract.request import ExportKind, SensorsdataUserGroupUsers
from export_worker.credentials import Redactor
from export_worker.errors import (
    FieldProblem,
    InvalidRequestError,
    OperationFailedError,
    PlatformMalformedError,
    PlatformRefusedError,
)
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile, Submitted
from export_worker.platforms.base import Download
from export_worker.platforms.http.client import LISTING_MAX_BYTES, HttpClient
from export_worker.platforms.operations import Operation
from export_worker.platforms.sensorsdata.api import BASE_TIMES, Calls, SensorsdataApi
from export_worker.platforms.sensorsdata.groups import (
    Group,
    OperationId,
    Partition,
    ended_partitions,
    group_of,
    partitions_of,
    poll_outcome,
)
from export_worker.platforms.sensorsdata.operations import DELETE, EXECUTE, GET, LIST, OPERATIONS, SQL, STATUS
from export_worker.platforms.sensorsdata.settings import SensorsdataSettings, sensorsdata_auth
from export_worker.platforms.sensorsdata.sql import EnvelopeLines, JsonLines, Listing, identifier
from export_worker.platforms.sensorsdata.users import QueryClient, UserList, UserListSpec
from export_worker.platforms.settings import ConnectionSettings, platform_settings

USER_GROUPS = "user-groups"
CALL_ROWS_MAX = 10_000
"""Limit for the operation `sql-query`: the documents allow that many in one query, and so many rows fit into memory."""


class SensorsdataDriver:
    """Implements `Driver`, `Catalog`, `Previewing` and `Operations`. Can be built outside of an event loop.

    Args:
        name: Name of the connection.
        settings: The connection's section of the configuration.
        redactor: Receives the connection's secrets.

    Raises:
        ConfigError: An option is unknown or wrong, or a secret cannot be read. The message names
            `connections.<name>.<option>`.
    """

    resources: Sequence[str] = (USER_GROUPS,)
    operations: Mapping[str, Operation] = OPERATIONS
    settings_model = SensorsdataSettings

    def __init__(self, name: str, settings: ConnectionSettings, redactor: Redactor) -> None:
        self._settings = own = platform_settings(name, settings, self.settings_model)
        self._auth = sensorsdata_auth(name, own, redactor)
        self._client = HttpClient.for_connection(name, own, redactor)
        self._api = SensorsdataApi(self._client, self._auth.groups)
        self._calls = Calls(own)

    async def submit(self, export: ExportKind) -> Submitted:
        """Records the state of the group's partitions, then executes the group.

        The platform has no id for an execution, so the recorded state is the operation id.

        Raises:
            OperationFailedError: `execute` is false in the request, and the group was never computed.
            PlatformError: The platform did not give a usable response.
        """
        request = _user_group_users(export)
        group = await self._group(request.group_id)
        identifier(self._group_column(group.name))
        if not request.execute:
            if request.base_times is None and group.last_succeed is None:
                raise OperationFailedError(f"user group {request.group_id} was never computed; set `execute` to true")
            return Submitted(OperationId(request.group_id).text(), done=True)
        before = ended_partitions(group, await self._partitions(request))
        await self._api.send(self._calls.execute(request.group_id, request.base_times))
        return Submitted(OperationId(request.group_id, before).text())

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Requests the state of the partitions once. A computation that ended before the execution does not count."""
        request, recorded = _user_group_users(export), OperationId.parse(operation_id)
        if recorded.before is None and request.base_times is None:
            group = await self._group(request.group_id)
            return self._ready(request, group, group.last_succeed)
        outcome = poll_outcome(recorded, await self._partitions(request), request.base_times)
        if isinstance(outcome, Pending | OperationFailed):
            return outcome
        return self._ready(request, await self._group(request.group_id), outcome)

    @asynccontextmanager
    async def open_result(self, export: ExportKind, file: RemoteFile) -> AsyncIterator[Download]:
        """Opens the list of users. The queries are sent while the caller reads the list."""
        request = _user_group_users(export)
        fields = parse_qs(file.uri.partition("?")[2])
        columns = tuple(request.columns or self._settings.columns)
        # The key column is always selected, because pages are ranges of the key.
        selected = tuple(dict.fromkeys([self._settings.key_column, *columns]))
        count = fields.get("user_count") if self._settings.check_user_count else None
        spec = UserListSpec(
            listing=Listing(
                table=self._settings.table,
                key=self._settings.key_column,
                columns=selected,
                group_column=self._group_column(fields["name"][0]),
                page_rows=self._settings.page_rows,
                comment=self._settings.sql_comment,
            ),
            columns=columns,
            ndjson=request.file_format == "json",
            user_count=int(count[0]) if count else None,
        )
        yield UserList(self._queries(selected), spec)

    async def catalog(self, resource: str, project: str | None) -> list[dict[str, Any]]:
        """Lists the user groups of the connection's project.

        Raises:
            InvalidRequestError: The resource is unknown, or a project is given: the connection has its own project.
            PlatformError: The platform did not give a usable response.
        """
        if resource != USER_GROUPS:
            raise InvalidRequestError([FieldProblem("resource", f"must be one of {', '.join(self.resources)}")])
        if project is not None:
            raise InvalidRequestError([FieldProblem("project", "is not used: the connection's own project is listed")])
        groups = await self._api.send(self._calls.listing())
        if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
            raise PlatformMalformedError(f"{self._calls.listing()}: the response is no list of user groups")
        return groups

    async def preview(self, export: ExportKind) -> Preview:
        """Requests the user group of an export, with the number of members in its newest partition."""
        group = await self._group(_user_group_users(export).group_id)
        return Preview(found=True, name=group.name, users=group.last_succeed and group.last_succeed.user_count)

    async def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        body: AsyncIterator[bytes] | None,  # noqa: ARG002 - the protocol's argument; no call here takes CSV
    ) -> Any:
        """Makes one call; see `Operations.call`."""
        group_id, base_times = arguments.get("id"), arguments.get(BASE_TIMES)
        match operation.name, group_id:
            case LIST.name, _:
                return await self._api.send(self._calls.listing())
            case GET.name, int():
                return await self._api.send(self._calls.group(group_id))
            case EXECUTE.name, int():
                return await self._api.send(self._calls.execute(group_id, base_times))
            case STATUS.name, int():
                return await self._api.send(self._calls.status(group_id, base_times))
            case DELETE.name, int():
                return await self._api.send(self._calls.delete(group_id))
            case SQL.name, _:
                return await self._sql(arguments)
            case _:
                raise PlatformRefusedError(f"sensorsdata has no operation {operation.name} with these arguments")

    async def close(self) -> None:
        """Closes connections."""
        await self._auth.groups.close()
        await self._auth.sql.close()
        await self._client.close()

    async def _group(self, group_id: int) -> Group:
        call = self._calls.group(group_id)
        return group_of(await self._api.send(call), str(call))

    async def _partitions(self, request: SensorsdataUserGroupUsers) -> tuple[Partition, ...]:
        call = self._calls.status(request.group_id, request.base_times)
        return partitions_of(await self._api.send(call), str(call))

    def _group_column(self, group_name: str) -> str:
        return self._settings.group_column.replace("{name}", group_name)

    def _ready(self, request: SensorsdataUserGroupUsers, group: Group, computed: Partition | None) -> Ready:
        """Returns the single file. The driver builds the file's URI from the values that the query needs.

        The column of a group marks the members of the newest partition. The members of an older partition cannot be
        queried, and their number does not match the list.
        """
        fields = {"name": group.name}
        is_older = (
            computed is not None
            and group.last_succeed is not None
            and group.last_succeed.base_time > computed.base_time
        )
        if computed is not None and computed.user_count is not None and not is_older:
            fields["user_count"] = str(computed.user_count)
        suffix = "json" if request.file_format == "json" else "csv"
        uri = f"user-group:{request.group_id}?{urlencode(fields)}"
        return Ready(computed.status or None if computed else None, (RemoteFile(uri, f"{group.name}.{suffix}"),))

    def _queries(self, columns: Sequence[str]) -> QueryClient:
        v3 = self._auth.v3
        return QueryClient(
            self._client,
            self._auth.sql,
            self._calls.sql_v3 if v3 else self._calls.sql_v2,
            lambda: self._calls.reader(columns, v3=v3),
        )

    async def _sql(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns the rows of a statement that the user wrote."""
        more = {name: str(arguments[name]) for name in ("limit", "request_id") if name in arguments}
        v3 = self._auth.v3
        if more and not v3:
            message = "is for a connection with api_key; write LIMIT into the statement"
            raise InvalidRequestError([FieldProblem(name, message) for name in more])
        queries = QueryClient(
            self._client,
            self._auth.sql,
            (lambda sql: self._calls.sql_v3(sql, more)) if v3 else self._calls.sql_v2_json,
            EnvelopeLines if v3 else JsonLines,
        )
        found: list[dict[str, Any]] = []
        size_bytes = 0
        async for rows in queries.rows(arguments["sql"]):
            found += rows
            size_bytes += len(json.dumps(rows))
            if len(found) > CALL_ROWS_MAX or size_bytes > LISTING_MAX_BYTES:
                limits = f"{CALL_ROWS_MAX} rows or {LISTING_MAX_BYTES // 2**20} MiB"
                raise PlatformRefusedError(f"the statement returns more than {limits}; add a LIMIT")
        return found


def _user_group_users(export: ExportKind) -> SensorsdataUserGroupUsers:
    if not isinstance(export, SensorsdataUserGroupUsers):
        raise PlatformRefusedError(f"a connection to sensorsdata cannot export {export.kind}")
    return export
