"""The file with the users of a user group, segment or tag, and statements that the user wrote."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode

from export_worker.errors import FieldProblem, InvalidRequestError, PlatformRefusedError
from export_worker.lifecycle.observations import RemoteFile
from export_worker.platforms.http.client import LISTING_MAX_BYTES, HttpClient
from export_worker.platforms.sensorsdata.api import Calls
from export_worker.platforms.sensorsdata.settings import SensorsdataAuth, SensorsdataSettings
from export_worker.platforms.sensorsdata.sql import Condition, EnvelopeLines, JsonLines, Listing
from export_worker.platforms.sensorsdata.users import QueryClient, UserList, UserListSpec

CALL_ROWS_MAX = 10_000
"""Limit for the operation `sql-query`: the documents allow that many in one query, and so many rows fit into memory."""


@dataclass(frozen=True, slots=True)
class Marked:
    """How the table of users marks the users of a list, and what the file has of them.

    Args:
        column: Column that marks them.
        condition: What the column is for them.
        columns: Columns of the file, in order.
        file_format: `json` for one JSON object a line; otherwise CSV with a header.
    """

    column: str
    condition: Condition
    columns: tuple[str, ...]
    file_format: str | None


def file_of(source: str, name: str, file_format: str | None, users: int | None) -> RemoteFile:
    """Returns the single file of an export. Its URI has the values that the query needs.

    Args:
        source: What the users belong to; the first part of the URI.
        name: The platform's name of it.
        users: The number of users, if it is known and applies.
    """
    fields = {"name": name} | ({} if users is None else {"user_count": str(users)})
    return RemoteFile(f"{source}?{urlencode(fields)}", f"{name}.{'json' if file_format == 'json' else 'csv'}")


def name_in(file: RemoteFile) -> str:
    """Returns the name that `file_of` has put into the URI."""
    return parse_qs(file.uri.partition("?")[2])["name"][0]


class Members:
    """Queries the users of one connection."""

    def __init__(self, client: HttpClient, auth: SensorsdataAuth, settings: SensorsdataSettings) -> None:
        self._client = client
        self._auth = auth
        self._settings = settings
        self._calls = Calls(settings)

    def open(self, marked: Marked, file: RemoteFile) -> UserList:
        """Returns the list of users. The queries are sent while the caller reads it."""
        own = self._settings
        # The key column is always selected, because pages are ranges of the key.
        selected = tuple(dict.fromkeys([own.key_column, *marked.columns]))
        count = parse_qs(file.uri.partition("?")[2]).get("user_count") if own.check_user_count else None
        spec = UserListSpec(
            listing=Listing(own.table, own.key_column, selected, marked.column, own.sql_comment, marked.condition),
            columns=marked.columns,
            ndjson=marked.file_format == "json",
            user_count=int(count[0]) if count else None,
            page_rows=own.page_rows,
            page_rows_max=own.page_rows_max,
        )
        return UserList(self._queries(selected), spec)

    def _queries(self, columns: Sequence[str]) -> QueryClient:
        v3 = self._auth.v3
        return QueryClient(
            self._client,
            self._auth.sql,
            self._calls.sql_v3 if v3 else self._calls.sql_v2,
            lambda: self._calls.reader(columns, v3=v3),
        )

    async def sql(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Returns the rows of a statement that the user wrote.

        Raises:
            InvalidRequestError: An argument is for the v3 API, and the connection has none.
            PlatformError: The platform did not give a usable response.
        """
        more = {name: str(arguments[name]) for name in ("limit", "request_id") if name in arguments}
        v3 = self._auth.v3
        if more and not v3:
            message = "is for a connection with api_key; write LIMIT into the statement"
            raise InvalidRequestError([FieldProblem(name, message) for name in more])
        queries = QueryClient(
            self._client,
            self._auth.sql,
            (lambda sql, _: self._calls.sql_v3(sql, self._settings.page_rows, more)) if v3 else self._calls.sql_v2_json,
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
