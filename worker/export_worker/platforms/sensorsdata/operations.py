"""The calls of Sensors Data's user group document, and the SQL query.

Paths are those that the document prints. The connection's setting `api_prefix` is put before them.
"""

from collections.abc import Mapping

from export_worker.platforms.operations import Operation, Parameter

GROUPS_PATH = "/v2/user_groups"
SQL_V2_PATH = "/sql/query"
SQL_V3_PATH = "/v3/analytics/v1/model/sql/query"

_ID = Parameter("id", "integer", "path", required=True, about="id of the user group")
_BASE_TIME_ABOUT = "base times of partitions, each like 2019-03-05 00:00:00; default: the newest"

LIST = Operation("list", "GET", GROUPS_PATH, "list the user groups")
GET = Operation("get", "GET", f"{GROUPS_PATH}/{{id}}", "show one user group", (_ID,))
EXECUTE = Operation(
    "execute",
    "POST",
    f"{GROUPS_PATH}/{{id}}/execute",
    "compute partitions of a user group",
    (_ID, Parameter("base_time_list", "list", "json", about=_BASE_TIME_ABOUT)),
)
STATUS = Operation(
    "status",
    "GET",
    f"{GROUPS_PATH}/{{id}}/status",
    "show the state of the computation of partitions",
    (_ID, Parameter("base_time_list", "list", "query", about=_BASE_TIME_ABOUT)),
)
DELETE = Operation("delete", "DELETE", f"{GROUPS_PATH}/{{id}}", "delete a user group", (_ID,), deletes=True)
SQL = Operation(
    "sql-query",
    "POST",
    SQL_V2_PATH,
    "return the rows of an SQL statement; uses the v3 API if the connection has an api-key",
    (
        Parameter("sql", "text", "json", required=True),
        Parameter("limit", "integer", "json", about="largest number of rows; v3 only"),
        Parameter("request_id", "text", "json", about="v3 only"),
    ),
    aliases=("sql",),
)

OPERATIONS: Mapping[str, Operation] = {item.name: item for item in (LIST, GET, EXECUTE, STATUS, DELETE, SQL)}
