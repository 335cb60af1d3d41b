"""Exports of segments and tags: the current OpenAPI (Horizon), which computes a version for a base time as a task."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from export_worker.contract.dry_run import Preview
from export_worker.contract.request import ExportKind, SensorsdataSegmentUsers, SensorsdataTagUsers
from export_worker.errors import OperationFailedError, PlatformMalformedError, PlatformRefusedError
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile, Submitted
from export_worker.platforms.http.listings import NAME_MAX_CHARS, ListingLimit
from export_worker.platforms.http.responses import storable_text
from export_worker.platforms.operations import Operation
from export_worker.platforms.sensorsdata.horizon_api import (
    LIST_PAGE_ROWS,
    SEGMENT,
    TAG,
    HorizonApi,
    HorizonCalls,
    Names,
)
from export_worker.platforms.sensorsdata.horizon_operations import HORIZON_OPERATIONS
from export_worker.platforms.sensorsdata.horizon_tasks import (
    Evaluation,
    Task,
    Version,
    before_of,
    items_of,
    last_task,
    midnight_before,
    newest_version,
    outcome_of,
)
from export_worker.platforms.sensorsdata.members import Marked, file_of, name_in
from export_worker.platforms.sensorsdata.settings import SensorsdataSettings
from export_worker.platforms.sensorsdata.sql import identifier

_NAMES_OF = {"segments": SEGMENT, "tags": TAG}
Request = SensorsdataSegmentUsers | SensorsdataTagUsers


class Horizon:
    """Computes segments and tags with the current OpenAPI."""

    resources = tuple(_NAMES_OF)
    operations: Mapping[str, Operation] = HORIZON_OPERATIONS

    def __init__(self, api: HorizonApi, settings: SensorsdataSettings) -> None:
        self._api = api
        self._settings = settings
        self._calls = HorizonCalls(settings)

    async def submit(self, export: ExportKind) -> Submitted:
        """Requests the computation of a version, after recording the last task of its base time.

        Raises:
            OperationFailedError: A newer version exists, whose users the query would return; or `evaluate` is false in
                the request, and there is no such version.
            PlatformError: The platform did not give a usable response.
        """
        request = _request(export)
        names, name = _named(request)
        identifier(self._column(names, name))
        await self._definition(names, name)
        newest = await self._newest(names, name)
        if not request.evaluate:
            return Submitted(_existing(request, name, newest).text(), done=True)
        base_time = request.base_time or self._default_base_time(newest)
        if newest is not None and newest.base_time > base_time:
            raise OperationFailedError(f"{name} has a newer version, whose users would be exported: {newest.base_time}")
        before = before_of(names, await self._last_task(names, name, base_time))
        await self._api.data(self._calls.evaluate(names, name, base_time))
        return Submitted(Evaluation(base_time, True, before).text())

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Requests the last task of the base time once. The task before the request does not count."""
        request, evaluation = _request(export), Evaluation.parse(operation_id)
        names, name = _named(request)
        if not evaluation.requested:
            return Ready(None, (file_of(names.kind, name, request.file_format, evaluation.users),))
        last = await self._last_task(names, name, evaluation.base_time)
        outcome = outcome_of(names, evaluation.task_of(last))
        if isinstance(outcome, Pending | OperationFailed):
            return outcome
        return Ready(outcome.status, (file_of(names.kind, name, request.file_format, outcome.users),))

    async def cancel(self, export: ExportKind, operation_id: str) -> bool:
        """Cancels the task of this computation; returns False if it has ended, or is not listed yet."""
        request, evaluation = _request(export), Evaluation.parse(operation_id)
        names, name = _named(request)
        if not evaluation.requested:
            return False
        task = evaluation.task_of(await self._last_task(names, name, evaluation.base_time))
        if task is None or not isinstance(outcome_of(names, task), Pending):
            return False
        await self._api.data(self._calls.cancel(names, task.task_id))
        return True

    def marked(self, export: ExportKind, file: RemoteFile) -> Marked:
        """Returns how the users are marked. The file has the value of a tag as its last column."""
        request = _request(export)
        names, _ = _named(request)
        column = self._column(names, name_in(file))
        columns = tuple(request.columns or self._settings.columns)
        if names is SEGMENT:
            return Marked(column, self._settings.segment_condition, columns, request.file_format)
        return Marked(column, "IS NOT NULL", tuple(dict.fromkeys([*columns, column])), request.file_format)

    async def catalog(self, resource: str) -> list[dict[str, Any]]:
        """Lists the segments or tags of the connection's project, page by page."""
        names, found, page = _NAMES_OF[resource], dict[str, dict[str, Any]](), 1
        limit = ListingLimit(f"{names.kind}/definition/list")
        while True:
            call = self._calls.listing(names, page)
            items = items_of(await self._api.data(call), names.definitions, str(call))
            limit.add(items)
            known = len(found)
            found |= {str(item.get("name")): item for item in items}
            # A server that ignores pages returns all items each time, so a page without new ones ends the listing.
            if len(items) < LIST_PAGE_ROWS or len(found) == known:
                return list(found.values())
            page += 1

    async def check(self) -> str:
        """Requests one segment."""
        call = self._calls.listing(SEGMENT, 1, page_size=1)
        data = await self._api.data(call)
        total = data.get("total", len(items_of(data, SEGMENT.definitions, str(call))))
        return f"{total} segments" if isinstance(total, int) else "segments are listed"

    async def preview(self, export: ExportKind) -> Preview:
        """Requests the segment or tag of an export, with the number of users in its newest version."""
        names, name = _named(_request(export))
        definition = await self._definition(names, name)
        newest = await self._newest(names, name)
        shown = storable_text(definition.get("display_name"), NAME_MAX_CHARS)
        return Preview(found=True, name=shown or name, users=None if newest is None else newest.users)

    async def call(self, operation: Operation, arguments: Mapping[str, Any]) -> Any:
        """Makes one call of the table. Arguments that a setting states may be left out."""
        defaults: dict[str, Any] = {"entity_name": self._settings.entity_name, "project_id": self._settings.project_id}
        if "page" in (names := {parameter.name for parameter in operation.parameters}):
            defaults |= {"page": 1, "page_size": LIST_PAGE_ROWS}
        stated = {name: value for name, value in defaults.items() if name in names and value is not None}
        return await self._api.data(self._calls.other(operation.path, stated | dict(arguments)))

    async def _definition(self, names: Names, name: str) -> Mapping[str, Any]:
        call = self._calls.definition(names, name)
        definition = await self._api.data(call)
        if definition.get("name") != name:
            raise PlatformMalformedError(f"{call}: the response is no definition of this {names.kind}")
        return definition

    async def _newest(self, names: Names, name: str) -> Version | None:
        call = self._calls.versions(names, name)
        return newest_version(names, await self._api.data(call), str(call))

    async def _last_task(self, names: Names, name: str, base_time: str) -> Task | None:
        call = self._calls.tasks(names, name, base_time)
        return last_task(names, await self._api.data(call), str(call))

    def _column(self, names: Names, name: str) -> str:
        template = self._settings.segment_column if names is SEGMENT else self._settings.tag_column
        return template.replace("{name}", name)

    def _default_base_time(self, newest: Version | None) -> str:
        """Returns the beginning of today in the zone of the platform, or the newest version if that is later."""
        today = midnight_before(datetime.now(UTC), self._settings.offset())
        return today if newest is None else max(today, newest.base_time)


def _existing(request: Request, name: str, newest: Version | None) -> Evaluation:
    """Returns the newest version, which is exported as it is."""
    if newest is None:
        raise OperationFailedError(f"{name} was never computed; set `evaluate` to true")
    if request.base_time not in {None, newest.base_time}:
        message = f"has no users of the version {request.base_time} that can be queried: the newest is"
        raise OperationFailedError(f"{name} {message} {newest.base_time}; leave out base_time")
    return Evaluation(newest.base_time, False, users=newest.users)


def _named(request: Request) -> tuple[Names, str]:
    if isinstance(request, SensorsdataSegmentUsers):
        return SEGMENT, request.segment_name
    return TAG, request.tag_name


def _request(export: ExportKind) -> Request:
    if not isinstance(export, SensorsdataSegmentUsers | SensorsdataTagUsers):
        own = export.kind.startswith("sensorsdata.")
        advice = "; use sensorsdata.segment_users, or set `api` of the connection to `v2`" if own else ""
        raise PlatformRefusedError(f"a connection to sensorsdata (api horizon) cannot export {export.kind}{advice}")
    return export
