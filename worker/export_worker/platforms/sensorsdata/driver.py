"""Sensors Data: the users of a user group, computed before if wanted, by way of the SQL query API (v2 or v3)."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode

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
from export_worker.platforms.http.client import HttpClient
from export_worker.platforms.operations import Operation
from export_worker.platforms.sensorsdata.api import BASE_TIMES, Api, Calls
from export_worker.platforms.sensorsdata.groups import (
    Group,
    Handle,
    Partition,
    group_of,
    looked_at,
    noted,
    partitions_of,
)
from export_worker.platforms.sensorsdata.operations import DELETE, EXECUTE, GET, LIST, OPERATIONS, SQL, STATUS
from export_worker.platforms.sensorsdata.settings import SensorsdataSettings, sensorsdata_access
from export_worker.platforms.sensorsdata.sql import EnvelopeLines, JsonLines, Listing, identifier
from export_worker.platforms.sensorsdata.users import Order, QueryClient, UserList
from export_worker.platforms.settings import ConnectionSettings, platform_settings

USER_GROUPS = "user-groups"
CALL_ROWS_MAX = 10_000
"""Of an SQL statement by hand: what the documents allow in one query, and little enough to hold."""


class SensorsdataDriver:
    """Speaks to Sensors Data. Satisfies `Driver`, `Catalog` and `Operations`; may be built outside of a loop.

    Args:
        name: Of the connection.
        redactor: Learns the connection's secrets.

    Raises:
        ConfigError: An option is unknown or wrong, or a secret cannot be read. Names `connections.<name>.<option>`.
    """

    resources: Sequence[str] = (USER_GROUPS,)
    operations: Mapping[str, Operation] = OPERATIONS

    def __init__(self, name: str, settings: ConnectionSettings, redactor: Redactor) -> None:
        self._settings = own = platform_settings(name, settings, SensorsdataSettings)
        self._access = sensorsdata_access(name, own, redactor)
        self._client = HttpClient(name, own.base_url, redactor, reach=own.reach())
        self._api = Api(self._client, self._access.groups)
        self._calls = Calls(own)

    async def submit(self, export: ExportKind) -> Submitted:
        """Note how the group stands, and execute it. The platform has no id for that: the note is the operation's id.

        Raises:
            OperationFailedError: The group is not to be executed, and nothing of it has ever been computed.
            PlatformError: The platform does not answer as it should.
        """
        wanted = _wanted(export)
        group = await self._group(wanted.group_id)
        identifier(self._group_column(group.name))
        if not wanted.execute:
            if wanted.base_times is None and group.last_succeed is None:
                raise OperationFailedError(f"user group {wanted.group_id} was never computed; let `execute` be true")
            return Submitted(Handle(wanted.group_id).text(), done=True)
        before = noted(group, await self._partitions(wanted))
        await self._api.ask(self._calls.execute(wanted.group_id, wanted.base_times))
        return Submitted(Handle(wanted.group_id, before).text())

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Look once at the partitions; those that stood there before the execution do not count."""
        wanted, handle = _wanted(export), Handle.of(operation_id)
        if handle.noted is None and wanted.base_times is None:
            group = await self._group(wanted.group_id)
            return self._ready(wanted, group, group.last_succeed)
        seen = await self._partitions(wanted)
        look = looked_at(handle, seen, wanted.base_times)
        if isinstance(look, Pending | OperationFailed):
            return look
        return self._ready(wanted, await self._group(wanted.group_id), look)

    @asynccontextmanager
    async def open_result(self, export: ExportKind, file: RemoteFile) -> AsyncIterator[Download]:
        """Open the list of users: the queries are made while it is read."""
        wanted = _wanted(export)
        fields = parse_qs(file.uri.partition("?")[2])
        columns = tuple(wanted.columns or self._settings.columns)
        # The key is asked for in any case: pages are cut by it.
        asked = tuple(dict.fromkeys([self._settings.key_column, *columns]))
        count = fields.get("user_count") if self._settings.check_user_count else None
        order = Order(
            listing=Listing(
                table=self._settings.table,
                key=self._settings.key_column,
                columns=asked,
                group_column=self._group_column(fields["name"][0]),
                page_rows=self._settings.page_rows,
                comment=self._settings.sql_comment,
            ),
            columns=columns,
            ndjson=wanted.file_format == "json",
            user_count=int(count[0]) if count else None,
        )
        yield UserList(self._queries(asked), order)

    async def catalog(self, resource: str, project: str | None) -> list[dict[str, Any]]:
        """List the user groups of the connection's project.

        Raises:
            InvalidRequestError: No such resource, or a project: the connection has one.
            PlatformError: The platform does not answer as it should.
        """
        if resource != USER_GROUPS:
            raise InvalidRequestError([FieldProblem("resource", f"must be one of {', '.join(self.resources)}")])
        if project is not None:
            raise InvalidRequestError([FieldProblem("project", "is not used: the connection's own project is listed")])
        groups = await self._api.ask(self._calls.listing())
        if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
            raise PlatformMalformedError(f"{self._calls.listing()}: the answer is no list of user groups")
        return groups

    async def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        body: AsyncIterator[bytes] | None,  # noqa: ARG002 - the protocol's argument; no call here takes CSV
    ) -> Any:
        """Make one call; see `Operations`."""
        group_id, base_times = arguments.get("id"), arguments.get(BASE_TIMES)
        match operation.name, group_id:
            case LIST.name, _:
                return await self._api.ask(self._calls.listing())
            case GET.name, int():
                return await self._api.ask(self._calls.group(group_id))
            case EXECUTE.name, int():
                return await self._api.ask(self._calls.execute(group_id, base_times))
            case STATUS.name, int():
                return await self._api.ask(self._calls.status(group_id, base_times))
            case DELETE.name, int():
                return await self._api.ask(self._calls.delete(group_id))
            case SQL.name, _:
                return await self._sql(arguments)
            case _:
                raise PlatformRefusedError(f"sensorsdata has no operation {operation.name} with these arguments")

    async def close(self) -> None:
        """Close connections."""
        await self._access.groups.close()
        await self._access.sql.close()
        await self._client.close()

    async def _group(self, group_id: int) -> Group:
        call = self._calls.group(group_id)
        return group_of(await self._api.ask(call), str(call))

    async def _partitions(self, wanted: SensorsdataUserGroupUsers) -> tuple[Partition, ...]:
        call = self._calls.status(wanted.group_id, wanted.base_times)
        return partitions_of(await self._api.ask(call), str(call))

    def _group_column(self, group_name: str) -> str:
        return self._settings.group_column.replace("{name}", group_name)

    def _ready(self, wanted: SensorsdataUserGroupUsers, group: Group, computed: Partition | None) -> Ready:
        """The one file. Its address is ours: it holds what the query needs.

        The column of a group has its newest members. Of an older base time they are not to be had, and their number
        says nothing of the list.
        """
        fields = {"name": group.name}
        overtaken = (
            computed is not None
            and group.last_succeed is not None
            and group.last_succeed.base_time > computed.base_time
        )
        if computed is not None and computed.user_count is not None and not overtaken:
            fields["user_count"] = str(computed.user_count)
        suffix = "json" if wanted.file_format == "json" else "csv"
        uri = f"user-group:{wanted.group_id}?{urlencode(fields)}"
        return Ready(computed.status or None if computed else None, (RemoteFile(uri, f"{group.name}.{suffix}"),))

    def _queries(self, columns: Sequence[str]) -> QueryClient:
        v3 = self._access.v3
        return QueryClient(
            self._client,
            self._access.sql,
            self._calls.sql_v3 if v3 else self._calls.sql_v2,
            lambda: self._calls.reader(columns, v3=v3),
        )

    async def _sql(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of a statement by hand."""
        more = {name: str(arguments[name]) for name in ("limit", "request_id") if name in arguments}
        v3 = self._access.v3
        if more and not v3:
            message = "is for a connection with api_key; write LIMIT into the statement"
            raise InvalidRequestError([FieldProblem(name, message) for name in more])
        queries = QueryClient(
            self._client,
            self._access.sql,
            (lambda sql: self._calls.sql_v3(sql, more)) if v3 else self._calls.sql_v2_json,
            EnvelopeLines if v3 else JsonLines,
        )
        found: list[dict[str, Any]] = []
        async for rows in queries.rows(arguments["sql"]):
            found += rows
            if len(found) > CALL_ROWS_MAX:
                raise PlatformRefusedError(f"the statement has more than {CALL_ROWS_MAX} rows; give it a LIMIT")
        return found


def _wanted(export: ExportKind) -> SensorsdataUserGroupUsers:
    if not isinstance(export, SensorsdataUserGroupUsers):
        raise PlatformRefusedError(f"a connection to sensorsdata cannot export {export.kind}")
    return export
