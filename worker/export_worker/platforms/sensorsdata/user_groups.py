"""Exports of user groups: the API v2, which has no id for a computation and no call that cancels one."""

from collections.abc import Mapping
from typing import Any

from export_worker.contract.dry_run import Preview
from export_worker.contract.request import ExportKind, SensorsdataUserGroupUsers
from export_worker.errors import OperationFailedError, PlatformMalformedError, PlatformRefusedError
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile, Submitted
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
from export_worker.platforms.sensorsdata.members import Marked, file_of, name_in
from export_worker.platforms.sensorsdata.operations import DELETE, EXECUTE, GET, LIST, OPERATIONS, STATUS
from export_worker.platforms.sensorsdata.settings import SensorsdataSettings
from export_worker.platforms.sensorsdata.sql import identifier

USER_GROUPS = "user-groups"


class UserGroups:
    """Computes user groups with the API v2."""

    resources = (USER_GROUPS,)
    operations: Mapping[str, Operation] = OPERATIONS

    def __init__(self, api: SensorsdataApi, settings: SensorsdataSettings) -> None:
        self._api = api
        self._settings = settings
        self._calls = Calls(settings)

    async def submit(self, export: ExportKind) -> Submitted:
        """Records the state of the group's partitions, then executes the group.

        The platform has no id for an execution, so the recorded state is the operation id.

        Raises:
            OperationFailedError: `execute` is false in the request, and the group was never computed.
            PlatformError: The platform did not give a usable response.
        """
        request = _request(export)
        group = await self._group(request.group_id)
        identifier(self._column(group.name))
        if not request.execute:
            if request.base_times is None and group.last_succeed is None:
                raise OperationFailedError(f"user group {request.group_id} was never computed; set `execute` to true")
            return Submitted(OperationId(request.group_id).text(), done=True)
        before = ended_partitions(group, await self._partitions(request))
        await self._api.send(self._calls.execute(request.group_id, request.base_times))
        return Submitted(OperationId(request.group_id, before).text())

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Requests the state of the partitions once. A computation that ended before the execution does not count."""
        request, recorded = _request(export), OperationId.parse(operation_id)
        if recorded.before is None and request.base_times is None:
            group = await self._group(request.group_id)
            return self._ready(request, group, group.last_succeed)
        outcome = poll_outcome(recorded, await self._partitions(request), request.base_times)
        if isinstance(outcome, Pending | OperationFailed):
            return outcome
        return self._ready(request, await self._group(request.group_id), outcome)

    async def cancel(self, _export: ExportKind, _operation_id: str) -> bool:
        """Returns False: the API has no call for it, so the computation continues."""
        return False

    def marked(self, export: ExportKind, file: RemoteFile) -> Marked:
        """Returns how the members of the group are marked."""
        request = _request(export)
        columns = tuple(request.columns or self._settings.columns)
        return Marked(self._column(name_in(file)), "= 1", columns, request.file_format)

    async def catalog(self, _resource: str) -> list[dict[str, Any]]:
        """Lists the user groups of the connection's project."""
        groups = await self._api.send(self._calls.listing())
        if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
            raise PlatformMalformedError(f"{self._calls.listing()}: the response is no list of user groups")
        return groups

    async def check(self) -> str:
        """Lists the user groups."""
        return f"{len(await self.catalog(USER_GROUPS))} {USER_GROUPS}"

    async def preview(self, export: ExportKind) -> Preview:
        """Requests the user group of an export, with the number of members in its newest partition."""
        group = await self._group(_request(export).group_id)
        return Preview(found=True, name=group.name, users=group.last_succeed and group.last_succeed.user_count)

    async def call(self, operation: Operation, arguments: Mapping[str, Any]) -> Any:
        """Makes one call of the table."""
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
            case _:
                raise PlatformRefusedError(f"sensorsdata has no operation {operation.name} with these arguments")

    async def _group(self, group_id: int) -> Group:
        call = self._calls.group(group_id)
        return group_of(await self._api.send(call), str(call))

    async def _partitions(self, request: SensorsdataUserGroupUsers) -> tuple[Partition, ...]:
        call = self._calls.status(request.group_id, request.base_times)
        return partitions_of(await self._api.send(call), str(call))

    def _column(self, group_name: str) -> str:
        return self._settings.group_column.replace("{name}", group_name)

    def _ready(self, request: SensorsdataUserGroupUsers, group: Group, computed: Partition | None) -> Ready:
        """Returns the single file.

        The column of a group marks the members of the newest partition. The members of an older partition cannot be
        queried, and their number does not match the list.
        """
        last = group.last_succeed
        is_older = computed is not None and last is not None and last.base_time > computed.base_time
        users = None if computed is None or is_older else computed.user_count
        file = file_of(f"user-group:{request.group_id}", group.name, request.file_format, users)
        return Ready(computed.status or None if computed else None, (file,))


def _request(export: ExportKind) -> SensorsdataUserGroupUsers:
    if not isinstance(export, SensorsdataUserGroupUsers):
        advice = "; set `api` of the connection to `horizon`" if export.kind.startswith("sensorsdata.") else ""
        raise PlatformRefusedError(f"a connection to sensorsdata (api v2) cannot export {export.kind}{advice}")
    return export
