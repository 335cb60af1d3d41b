"""The driver of Sensors Data: exports of the users of user groups (API v2), or of segments and tags (Horizon).

An export computes them first, unless its request states otherwise. The users come from the SQL query API, v2 or v3.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from export_worker.contract.dry_run import Preview
from export_worker.contract.request import ExportKind
from export_worker.credentials import Redactor
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.lifecycle.observations import Polled, RemoteFile, Submitted
from export_worker.platforms.base import Download
from export_worker.platforms.http.client import HttpClient
from export_worker.platforms.operations import Operation
from export_worker.platforms.sensorsdata.api import SensorsdataApi
from export_worker.platforms.sensorsdata.horizon import Horizon
from export_worker.platforms.sensorsdata.horizon_api import HorizonApi
from export_worker.platforms.sensorsdata.members import Members
from export_worker.platforms.sensorsdata.operations import SQL
from export_worker.platforms.sensorsdata.settings import SensorsdataSettings, sensorsdata_auth
from export_worker.platforms.sensorsdata.user_groups import UserGroups
from export_worker.platforms.settings import ConnectionSettings, platform_settings


class SensorsdataDriver:
    """Implements `Driver`, `Cancelling`, `Catalog`, `Checking`, `Previewing` and `Operations`.

    Can be built outside of an event loop. The setting `api` decides which of the two APIs it uses.

    Args:
        name: Name of the connection.
        settings: The connection's section of the configuration.
        redactor: Receives the connection's secrets.

    Raises:
        ConfigError: An option is unknown or wrong, or a secret cannot be read. The message names
            `connections.<name>.<option>`.
    """

    resources: Sequence[str] = (*UserGroups.resources, *Horizon.resources)
    operations: Mapping[str, Operation] = {**UserGroups.operations, **Horizon.operations}
    settings_model = SensorsdataSettings

    def __init__(self, name: str, settings: ConnectionSettings, redactor: Redactor) -> None:
        own = platform_settings(name, settings, self.settings_model)
        self._auth = sensorsdata_auth(name, own, redactor)
        self._client = HttpClient.for_connection(name, own, redactor)
        self._members = Members(self._client, self._auth, own)
        self._api: UserGroups | Horizon = (
            Horizon(HorizonApi(self._client, self._auth.sql), own)
            if own.api == "horizon"
            else UserGroups(SensorsdataApi(self._client, self._auth.groups), own)
        )
        self.resources = self._api.resources
        self.operations = self._api.operations

    async def submit(self, export: ExportKind) -> Submitted:
        """Starts a computation; see `UserGroups.submit` and `Horizon.submit`."""
        return await self._api.submit(export)

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Requests the state of a computation once."""
        return await self._api.poll(export, operation_id)

    async def cancel(self, export: ExportKind, operation_id: str) -> bool:
        """Cancels a computation, and returns whether there is one that can be cancelled. Only Horizon has such."""
        return await self._api.cancel(export, operation_id)

    @asynccontextmanager
    async def open_result(self, export: ExportKind, file: RemoteFile) -> AsyncIterator[Download]:
        """Opens the list of users. The queries are sent while the caller reads the list."""
        yield self._members.open(self._api.marked(export, file), file)

    async def catalog(self, resource: str, project: str | None) -> list[dict[str, Any]]:
        """Lists a resource of the connection's project.

        Raises:
            InvalidRequestError: The resource is unknown, or a project is given: the connection has its own project.
            PlatformError: The platform did not give a usable response.
        """
        if resource not in self.resources:
            raise InvalidRequestError([FieldProblem("resource", f"must be one of {', '.join(self.resources)}")])
        if project is not None:
            raise InvalidRequestError([FieldProblem("project", "is not used: the connection's own project is listed")])
        return await self._api.catalog(resource)

    async def check(self) -> str:
        """Makes a cheap call."""
        return await self._api.check()

    async def preview(self, export: ExportKind) -> Preview:
        """Requests what an export names, and its number of users."""
        return await self._api.preview(export)

    async def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any],
        body: AsyncIterator[bytes] | None,  # noqa: ARG002 - the protocol's argument; no call here takes CSV
    ) -> Any:
        """Makes one call; see `Operations.call`."""
        if operation.name == SQL.name:
            return await self._members.sql(arguments)
        return await self._api.call(operation, arguments)

    async def close(self) -> None:
        """Closes connections."""
        await self._auth.groups.close()
        await self._auth.sql.close()
        await self._client.close()
