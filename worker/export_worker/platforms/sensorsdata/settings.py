"""What a Sensors Data connection can be told, and how it is let in.

No document says all of it: what is inferred stands here as a default that a connection can change.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from export_worker.credentials import Redactor, reveal
from export_worker.platforms.http.auth import StaticAuth, check_header_value
from export_worker.platforms.http.client import Auth, Credential
from export_worker.platforms.settings import ConnectionSettings

SqlName = Annotated[str, StringConstraints(pattern=r"^[^`\x00-\x1f\x7f]{1,256}$")]
"""Goes between backticks, which have no escape of their own."""


class SensorsdataSettings(ConnectionSettings):
    """A Sensors Data connection: the token of a project for the v2 API, an api-key for the v3 API, or both.

    With both, user groups are asked for with the token and users with the api-key.

    Args:
        project: The platform's project; a token belongs to one.
        account_id: Header of the v3 API, optional there.
        api_prefix: Before every path. The document prints none; every known deployment has `/api`.
        execute_base_times: Where `base_time_list` travels when a group is executed; the document says "in path".
        status_base_times: The same for its status.
        sql_format: What the v2 query answers in: `json` has one object a line, `text` tab-separated lines below a
            header. Values with tabs or line ends cannot be told apart in the latter.
        sql_comment: Goes at the end of every statement; the query server takes its time limit from it.
        sql_silence_s: Seconds that a query may say nothing. Longer than the limit in `sql_comment`.
        table: Where the users are.
        key_column: Whole numbers, one for each user: pages are cut by it.
        group_column: Is 1 for the members of a group; `{name}` stands for the group's name.
        columns: What is exported unless a request names columns of its own.
        page_rows: Users in one query (the documents limit it); 0 asks for all of them in one.
        check_user_count: Refuse a list that is not as long as the platform said that the group is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    project: Annotated[str, Field(min_length=1)] = "default"
    account_id: str | None = None
    api_prefix: Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._~-]+)*$")] = "/api"
    execute_base_times: Literal["json", "query"] = "json"
    status_base_times: Literal["query", "json"] = "query"
    sql_format: Literal["json", "text"] = "json"
    sql_comment: Annotated[str, StringConstraints(pattern=r"^(/\*[^*]*\*/)?$")] = "/*MAX_QUERY_EXECUTION_TIME=1800*/"
    sql_silence_s: Annotated[float, Field(gt=0)] = 1860.0
    table: SqlName = "users"
    key_column: SqlName = "id"
    group_column: Annotated[SqlName, StringConstraints(pattern=r"\{name\}")] = "user_group_{name}"
    columns: Annotated[tuple[SqlName, ...], Field(min_length=1)] = ("id", "first_id", "second_id")
    page_rows: Annotated[int, Field(ge=0)] = 10_000
    check_user_count: bool = True

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if self.client_secret is not None:
            raise ValueError("sensorsdata takes no client_secret; give token or api_key")
        if self.token is None and self.api_key is None:
            raise ValueError("one of token (v2) and api_key (v3) is needed")
        return self


@dataclass(frozen=True, slots=True)
class Access:
    """How a connection is let in.

    Args:
        groups: For user groups: by the token if there is one.
        sql: For queries: by the api-key if there is one.
        v3: Whether queries go to the v3 API.
    """

    groups: Auth
    sql: Auth
    v3: bool


def sensorsdata_access(name: str, settings: SensorsdataSettings, redactor: Redactor) -> Access:
    """The ways in that the settings of the connection `name` describe. The redactor learns the secrets.

    Raises:
        ConfigError: A secret cannot be read, or cannot stand in a header. Names the setting.
    """
    v2, v3 = _v2_auth(name, settings, redactor), _v3_auth(name, settings, redactor)
    ways = [way for way in (v2, v3) if way is not None]
    return Access(groups=ways[0], sql=ways[-1], v3=v3 is not None)


def _v2_auth(name: str, settings: SensorsdataSettings, redactor: Redactor) -> Auth | None:
    """Token and project in the query string."""
    if settings.token is None:
        return None
    token = reveal(settings.token, f"connections.{name}.token")
    redactor.add(token)
    return StaticAuth(Credential(query={"token": token, "project": settings.project}))


def _v3_auth(name: str, settings: SensorsdataSettings, redactor: Redactor) -> Auth | None:
    """Key, project and account in headers."""
    if settings.api_key is None:
        return None
    api_key = reveal(settings.api_key, f"connections.{name}.api_key")
    redactor.add(api_key)
    headers = {
        "api-key": check_header_value(api_key, f"connections.{name}.api_key"),
        "sensorsdata-project": check_header_value(settings.project, f"connections.{name}.project"),
    }
    if settings.account_id is not None:
        headers["account-id"] = check_header_value(settings.account_id, f"connections.{name}.account_id")
    return StaticAuth(Credential(headers=headers))
