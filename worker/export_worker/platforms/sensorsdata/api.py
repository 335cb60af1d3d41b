"""Builds the calls of Sensors Data, and sends those about user groups. Only `SensorsdataApi` does I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from export_worker.credentials import Redactor
from export_worker.errors import PlatformRefusedError
from export_worker.platforms.http.client import SUBMIT_TIMEOUT_S, Call, HttpClient
from export_worker.platforms.http.outgoing import Auth
from export_worker.platforms.http.responses import error_for, excerpt_of_body
from export_worker.platforms.sensorsdata.operations import GROUPS_PATH, SQL_V2_PATH, SQL_V3_PATH
from export_worker.platforms.sensorsdata.settings import SensorsdataSettings
from export_worker.platforms.sensorsdata.sql import EnvelopeLines, JsonLines, LineReader, TextLines

BASE_TIMES = "base_time_list"


class Calls:
    """Builds calls according to the settings of a connection."""

    def __init__(self, settings: SensorsdataSettings) -> None:
        self._settings = settings
        self._groups = settings.api_prefix + GROUPS_PATH

    def listing(self) -> Call:
        """`GET /v2/user_groups`."""
        return Call("GET", self._groups, is_listing=True)

    def group(self, group_id: int) -> Call:
        """`GET /v2/user_groups/{id}`."""
        return Call("GET", f"{self._groups}/{group_id:d}")

    def delete(self, group_id: int) -> Call:
        """`DELETE /v2/user_groups/{id}`."""
        return Call("DELETE", f"{self._groups}/{group_id:d}")

    def execute(self, group_id: int, base_times: Sequence[str] | None) -> Call:
        """`POST /v2/user_groups/{id}/execute`; for the newest partition when no base times are given."""
        # The document says that requests are JSON, so a request without parameters has an empty object as its body.
        path = f"{self._groups}/{group_id:d}/execute"
        call = Call("POST", path, json={}, timeout_s=SUBMIT_TIMEOUT_S, starts_work=True)
        return _with_base_times(call, base_times, self._settings.execute_base_times)

    def status(self, group_id: int, base_times: Sequence[str] | None) -> Call:
        """`GET /v2/user_groups/{id}/status`; for the newest partition when no base times are given."""
        call = Call("GET", f"{self._groups}/{group_id:d}/status")
        return _with_base_times(call, base_times, self._settings.status_base_times)

    def sql_v2(self, statement: str, _limit: int = 0) -> Call:
        """`POST /api/sql/query`: a form. The setting `sql_format` decides the format of the response."""
        return self._sql_v2({"q": statement} if self._settings.sql_format == "text" else _json_form(statement))

    def sql_v2_json(self, statement: str, _limit: int = 0) -> Call:
        """`POST /api/sql/query`: a form. The response has one JSON object a line, whatever the settings say."""
        return self._sql_v2(_json_form(statement))

    def _sql_v2(self, form: Mapping[str, str]) -> Call:
        path = self._settings.api_prefix + SQL_V2_PATH
        return Call("POST", path, form=form, timeout_s=self._settings.sql_silence_s)

    def sql_v3(self, statement: str, limit: int = 0, more: Mapping[str, Any] | None = None) -> Call:
        """`POST /api/v3/analytics/v1/model/sql/query`: JSON. This API expects the limit as a text."""
        body = {"sql": statement} | ({"limit": str(limit)} if limit else {}) | dict(more or {})
        path = self._settings.api_prefix + SQL_V3_PATH
        return Call("POST", path, json=body, timeout_s=self._settings.sql_silence_s)

    def reader(self, columns: Sequence[str], *, v3: bool) -> LineReader:
        """Returns a reader for the response to a statement of the driver, whose first column is the key."""
        if v3:
            return EnvelopeLines(columns)
        return JsonLines(columns[0]) if self._settings.sql_format == "json" else TextLines(columns)


def _json_form(statement: str) -> dict[str, str]:
    return {"q": statement, "format": "json"}


def _with_base_times(call: Call, base_times: Sequence[str] | None, location: Literal["json", "query"]) -> Call:
    """Returns the call with the base times in the location that the settings name."""
    if not base_times:
        return call
    if location == "json":
        return replace(call, json={BASE_TIMES: list(base_times)})
    return replace(call, query={BASE_TIMES: list(base_times)})


class SensorsdataApi:
    """Sends the calls about user groups."""

    def __init__(self, client: HttpClient, auth: Auth) -> None:
        self._client = client
        self._auth = auth

    @property
    def redactor(self) -> Redactor:
        """Masks the connection's secrets."""
        return self._client.redactor

    async def send(self, call: Call) -> Any:
        """Sends a call and returns the JSON value of the response.

        An empty body counts as an empty object: some servers send it when there is nothing to return.

        Raises:
            PlatformRefusedError: A response of status 200 contains an error.
            PlatformError: No response, an error status, or no JSON.
        """
        response = await self._client.answer(call, self._auth)
        error = error_for(response, self.redactor)
        if error is not None:
            raise error
        if not response.body.strip():
            return {}
        value = await self._client.json(response)
        if isinstance(value, dict) and (value.get("error") or value.get("code") not in {None, 0, "SUCCESS"}):
            excerpt = excerpt_of_body(response.body, self.redactor)
            raise PlatformRefusedError(f"{call}: the response is an error: {excerpt}")
        return value
