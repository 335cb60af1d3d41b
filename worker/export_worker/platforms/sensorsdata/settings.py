"""Settings and authentication of a Sensors Data connection.

Some defaults are inferred, because no document states them. A connection can change each of them.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from export_worker.contract.wording import Pattern
from export_worker.credentials import Redactor
from export_worker.platforms.http.auth import SecretAuth, check_header_value
from export_worker.platforms.http.outgoing import Auth, Credential
from export_worker.platforms.sensorsdata.sql import Condition
from export_worker.platforms.settings import ConnectionSettings
from export_worker.secrets.secret import Secret

SqlName = Annotated[
    str, Pattern(r"^[^`\x00-\x1f\x7f]{1,256}$", "must have 1 to 256 characters, without ` and control characters")
]
"""Name of a table or column. The driver puts it between backticks. A backtick cannot be escaped, so none is allowed."""

HORIZON_REQUESTS_PER_SECOND = 3.0
"""The limit that the platform's rules for calls state. They state 10 calls at the same time as well."""

_SQL_LIMIT = re.compile(r"MAX_QUERY_EXECUTION_TIME=(\d{1,9})\b")
"""How a comment limits the time of a query (seconds)."""


class SensorsdataSettings(ConnectionSettings):
    """A Sensors Data connection: the token of a project for the v2 API, an api-key for the v3 API, or both.

    With both, calls about user groups use the token and queries of users use the api-key. The current OpenAPI
    (`api = "horizon"`) needs the api-key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    api: Literal["v2", "horizon"] = "v2"
    """The API that computes users: `v2` for user groups by number, `horizon` for segments and tags by name.
    Default `v2`.

    With `horizon`, `requests_per_second` is 3 by default, as documented
    (https://manual.sensorsdata.cn/sps/latest/api-22254716.html)."""

    project: Annotated[str, Field(min_length=1)] = "default"
    """The platform's project. A token belongs to one project. Default `default`, at least 1 character."""
    account_id: str | None = None
    """Sent in the header `account-id` of the v3 API, which does not require it. Default: none."""
    entity_name: Annotated[str, Field(min_length=1)] = "user"
    """Horizon: the entity whose segments and tags are exported. Default `user`, at least 1 character."""
    project_id: Annotated[int, Field(gt=0)] | None = None
    """Horizon: the number of the project, above 0. Some deployments require it for tags. Default: none."""
    utc_offset: Annotated[str, Pattern(r"^[+-](0[0-9]|1[0-4]):[0-5][0-9]$", "must be like +08:00")] = "+08:00"
    """Horizon: the offset of the platform's time zone. Without `base_time`, an export computes the version of today's
    midnight in this zone. Default `+08:00`."""
    api_prefix: Annotated[str, Pattern(r"^(/[A-Za-z0-9._~-]+)*$", "must be empty or a path, such as /api")] = "/api"
    """Put before every path. The document prints no prefix; every known deployment has `/api`. Default `/api`."""
    execute_base_times: Literal["json", "query"] = "json"
    """Where `base_time_list` is sent when a group is executed: `json` or `query`. The document says "in path".
    Default `json`."""
    status_base_times: Literal["query", "json"] = "query"
    """Where `base_time_list` is sent when the status is requested: `query` or `json`. Default `query`."""
    sql_format: Literal["json", "text"] = "json"
    """The response format of the v2 query. Default `json`.

    `json` has one object a line, `text` has tab-separated lines below a header. With `text`, values that contain
    tabs or line ends cannot be parsed correctly."""
    sql_comment: Annotated[str, Pattern(r"^(/\*[^*]*\*/)?$", "must be empty or a comment, such as /*X=1*/")] = (
        "/*MAX_QUERY_EXECUTION_TIME=1800*/"
    )
    """Appended to every statement. The query server reads its time limit from this comment.

    Default `/*MAX_QUERY_EXECUTION_TIME=1800*/`."""
    sql_silence_s: Annotated[float, Field(gt=0)] = 1860.0
    """The longest pause in the response to a query (seconds). It must exceed the limit in `sql_comment`.

    Default 1,860, above 0."""
    table: SqlName = "users"
    """The table of the users. Default `users`."""
    key_column: SqlName = "id"
    """A column with a different whole number for each user. Pages are ranges of this key. Default `id`."""
    group_column: Annotated[SqlName, Pattern(r"\{name\}", "must contain {name}")] = "user_group_{name}"
    """The column that is 1 for the members of a group; `{name}` is replaced by the group's name.

    Default `user_group_{name}`."""
    segment_column: Annotated[SqlName, Pattern(r"\{name\}", "must contain {name}")] = "{name}"
    """Horizon: the column that marks the users of a segment; `{name}` is replaced by the segment's name.

    Default `{name}`, as names of segments begin with `user_segment_`."""
    segment_condition: Condition = "= 1"
    """Horizon: what `segment_column` is for the users of a segment: `= 1`, `= TRUE` or `IS NOT NULL`. Default `= 1`."""
    tag_column: Annotated[SqlName, Pattern(r"\{name\}", "must contain {name}")] = "{name}"
    """Horizon: the column with the value of a tag; `{name}` is replaced by the tag's name. It is NULL for other users.

    Default `{name}`, as names of tags begin with `user_tag_`."""
    columns: Annotated[tuple[SqlName, ...], Field(min_length=1)] = ("id", "first_id", "second_id")
    """Columns that are exported unless a request names others, at least one. Default `id`, `first_id` and
    `second_id`."""
    page_rows: Annotated[int, Field(ge=0)] = 10_000
    """The number of users in the first query; 0 requests all users in one query. Default 10,000, at least 0.

    Every deployment is known to return that many."""
    page_rows_max: Annotated[int, Field(ge=1)] = 100_000
    """The number of users in one query of a large group. Default 100,000, at least 1.

    After a page with all its rows, the next one is ten times as large, up to this limit. So ten million users take
    about 100 queries, and with 1,000,000 about 12. If the server returns or accepts fewer rows, the pages stay smaller.
    With a value up to `page_rows`, all pages have the same size."""
    check_user_count: bool = True
    """Fail if the number of users differs from the number that the platform states for the group. Default: true."""

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if self.client_secret is not None:
            raise ValueError("sensorsdata takes no client_secret; give token or api_key")
        if self.token is None and self.api_key is None:
            raise ValueError("one of token (v2) and api_key (v3) is needed")
        if self.api == "horizon" and self.api_key is None:
            raise ValueError("api_key is needed with api horizon")
        return self

    @model_validator(mode="before")
    @classmethod
    def _rate_of_horizon(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and settings.get("api") == "horizon":
            return {"requests_per_second": HORIZON_REQUESTS_PER_SECOND, **settings}
        return settings

    def offset(self) -> timedelta:
        """Returns the offset of the platform's time zone."""
        hours, minutes = self.utc_offset.split(":")
        return timedelta(hours=int(hours), minutes=int(f"{hours[0]}{minutes}"))

    @model_validator(mode="after")
    def _silence_exceeds_the_limit(self) -> Self:
        limit = _SQL_LIMIT.search(self.sql_comment)
        if limit and self.sql_silence_s <= int(limit[1]):
            raise ValueError(f"sql_silence_s must exceed the limit in sql_comment: {limit[1]} (seconds)")
        return self


@dataclass(frozen=True, slots=True)
class SensorsdataAuth:
    """Authentication of a connection.

    Args:
        groups: For calls about user groups: the token if there is one, otherwise the api-key.
        sql: For queries: the api-key if there is one, otherwise the token.
        v3: Whether queries use the v3 API.
    """

    groups: Auth
    sql: Auth
    v3: bool


def sensorsdata_auth(name: str, settings: SensorsdataSettings, redactor: Redactor) -> SensorsdataAuth:
    """Builds the authentication of the connection `name`. The redactor receives the secrets.

    Raises:
        ConfigError: A secret cannot be read, or cannot be sent in a header. The message names the setting.
    """
    v2, v3 = _v2_auth(name, settings, redactor), _v3_auth(name, settings, redactor)
    configured = [auth for auth in (v2, v3) if auth is not None]
    return SensorsdataAuth(groups=configured[0], sql=configured[-1], v3=v3 is not None)


def _v2_auth(name: str, settings: SensorsdataSettings, redactor: Redactor) -> Auth | None:
    """Sends token and project in the query string."""
    if settings.token is None:
        return None
    token = Secret(settings.token, f"connections.{name}.token", redactor)
    return SecretAuth([token], lambda value: Credential(query={"token": value, "project": settings.project}))


def _v3_auth(name: str, settings: SensorsdataSettings, redactor: Redactor) -> Auth | None:
    """Sends key, project and account in headers."""
    if settings.api_key is None:
        return None
    api_key = Secret(settings.api_key, f"connections.{name}.api_key", redactor).must(check_header_value)
    headers = {"sensorsdata-project": check_header_value(settings.project, f"connections.{name}.project")}
    if settings.account_id is not None:
        headers["account-id"] = check_header_value(settings.account_id, f"connections.{name}.account_id")
    return SecretAuth([api_key], lambda value: Credential(headers={"api-key": value, **headers}))
