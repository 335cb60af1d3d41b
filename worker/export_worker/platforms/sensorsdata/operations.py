"""Every call of Sensors Data's user group document, and the SQL query beside it.

Paths are as the document prints them; the connection's `api_prefix` goes before them.
"""

from collections.abc import Mapping

from export_worker.platforms.operations import Operation, Parameter

GROUPS_PATH = "/v2/user_groups"
SQL_V2_PATH = "/sql/query"
SQL_V3_PATH = "/v3/analytics/v1/model/sql/query"

_ID = Parameter("id", "integer", "path", required=True, about="of the user group")
_BASE_TIME_ABOUT = "base times of partitions, each like 2019-03-05 00:00:00; the newest when left out"

LIST = Operation("list", "GET", GROUPS_PATH, "List the user groups.")
GET = Operation("get", "GET", f"{GROUPS_PATH}/{{id}}", "One user group.", (_ID,))
EXECUTE = Operation(
    "execute",
    "POST",
    f"{GROUPS_PATH}/{{id}}/execute",
    "Compute partitions of a user group.",
    (_ID, Parameter("base_time_list", "list", "json", about=_BASE_TIME_ABOUT)),
)
STATUS = Operation(
    "status",
    "GET",
    f"{GROUPS_PATH}/{{id}}/status",
    "How the computation of partitions stands.",
    (_ID, Parameter("base_time_list", "list", "query", about=_BASE_TIME_ABOUT)),
)
DELETE = Operation("delete", "DELETE", f"{GROUPS_PATH}/{{id}}", "Delete a user group.", (_ID,), deletes=True)
SQL = Operation(
    "sql-query",
    "POST",
    SQL_V2_PATH,
    "Rows of an SQL statement; goes to the v3 API when the connection has an api-key.",
    (
        Parameter("sql", "text", "json", required=True),
        Parameter("limit", "integer", "json", about="rows at most; v3 only"),
        Parameter("request_id", "text", "json", about="v3 only"),
    ),
    aliases=("sql",),
)

OPERATIONS: Mapping[str, Operation] = {item.name: item for item in (LIST, GET, EXECUTE, STATUS, DELETE, SQL)}
