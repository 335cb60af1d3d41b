"""The calls of Sensors Data as they go out. Pure but for `Api`, which makes those about user groups."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from export_worker.credentials import Redactor
from export_worker.errors import PlatformRefusedError
from export_worker.platforms.http.client import SUBMIT_TIMEOUT_S, Auth, Call, HttpClient
from export_worker.platforms.http.responses import error_for, json_value, one_line
from export_worker.platforms.sensorsdata.operations import GROUPS_PATH, SQL_V2_PATH, SQL_V3_PATH
from export_worker.platforms.sensorsdata.settings import SensorsdataSettings
from export_worker.platforms.sensorsdata.sql import EnvelopeLines, JsonLines, Reader, TextLines

BASE_TIMES = "base_time_list"


class Calls:
    """Makes calls by the settings of a connection."""

    def __init__(self, settings: SensorsdataSettings) -> None:
        self._settings = settings
        self._groups = settings.api_prefix + GROUPS_PATH

    def listing(self) -> Call:
        """`GET /v2/user_groups`."""
        return Call("GET", self._groups)

    def group(self, group_id: int) -> Call:
        """`GET /v2/user_groups/{id}`."""
        return Call("GET", f"{self._groups}/{group_id:d}")

    def delete(self, group_id: int) -> Call:
        """`DELETE /v2/user_groups/{id}`."""
        return Call("DELETE", f"{self._groups}/{group_id:d}")

    def execute(self, group_id: int, base_times: Sequence[str] | None) -> Call:
        """`POST /v2/user_groups/{id}/execute`; the newest partition when no base times are given."""
        # The document says that requests are JSON: where there is nothing to say, the body is an empty object.
        call = Call("POST", f"{self._groups}/{group_id:d}/execute", json={}, timeout_s=SUBMIT_TIMEOUT_S)
        return _with_base_times(call, base_times, self._settings.execute_base_times)

    def status(self, group_id: int, base_times: Sequence[str] | None) -> Call:
        """`GET /v2/user_groups/{id}/status`; of the newest partition when no base times are given."""
        call = Call("GET", f"{self._groups}/{group_id:d}/status")
        return _with_base_times(call, base_times, self._settings.status_base_times)

    def sql_v2(self, statement: str) -> Call:
        """`POST /api/sql/query`: a form."""
        return self._sql_v2({"q": statement} if self._settings.sql_format == "text" else _as_json(statement))

    def sql_v2_json(self, statement: str) -> Call:
        """The same for an answer with one object a line, whatever the settings want."""
        return self._sql_v2(_as_json(statement))

    def _sql_v2(self, form: Mapping[str, str]) -> Call:
        path = self._settings.api_prefix + SQL_V2_PATH
        return Call("POST", path, form=form, timeout_s=self._settings.sql_silence_s)

    def sql_v3(self, statement: str, more: Mapping[str, Any] | None = None) -> Call:
        """`POST /api/v3/analytics/v1/model/sql/query`: JSON. The limit is a text there."""
        rows = self._settings.page_rows
        body = {"sql": statement} | ({"limit": str(rows)} if rows else {}) | dict(more or {})
        path = self._settings.api_prefix + SQL_V3_PATH
        return Call("POST", path, json=body, timeout_s=self._settings.sql_silence_s)

    def reader(self, columns: Sequence[str], *, v3: bool) -> Reader:
        """Reads the answer to a statement of ours, whose first column is the key."""
        if v3:
            return EnvelopeLines(columns)
        return JsonLines(columns[0]) if self._settings.sql_format == "json" else TextLines(columns[0])


def _as_json(statement: str) -> dict[str, str]:
    return {"q": statement, "format": "json"}


def _with_base_times(call: Call, base_times: Sequence[str] | None, place: Literal["json", "query"]) -> Call:
    """The call with the base times where the settings want them."""
    if not base_times:
        return call
    if place == "json":
        return replace(call, json={BASE_TIMES: list(base_times)})
    return replace(call, query={BASE_TIMES: list(base_times)})


class Api:
    """Asks about user groups."""

    def __init__(self, client: HttpClient, auth: Auth) -> None:
        self._client = client
        self._auth = auth

    @property
    def redactor(self) -> Redactor:
        """Knows the connection's secrets."""
        return self._client.redactor

    async def ask(self, call: Call) -> Any:
        """The JSON value of a good answer; an empty body, as a server may have for "done", is an empty object.

        Raises:
            PlatformRefusedError: An error within an answer of status 200.
            PlatformError: No answer, an error status, or no JSON.
        """
        answer = await self._client.exchange(call, await self._auth.credential())
        problem = error_for(answer, self.redactor)
        if problem is not None:
            raise problem
        if not answer.body.strip():
            return {}
        value = json_value(answer, self.redactor)
        if isinstance(value, dict) and (value.get("error") or value.get("code") not in {None, 0, "SUCCESS"}):
            said = answer.body.decode(errors="replace")
            raise PlatformRefusedError(one_line(f"{call}: the answer is an error: {said}", self.redactor))
        return value
