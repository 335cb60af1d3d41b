"""Settings and authentication of a ThinkingData connection.

Everything that no document of the platform confirms is a setting.
"""

from typing import Annotated, Self

from pydantic import ConfigDict, Field, SecretStr, StringConstraints, model_validator

from export_worker.contract.field_types import Name
from export_worker.contract.wording import Pattern
from export_worker.credentials import Redactor
from export_worker.errors import ConfigError
from export_worker.platforms.http.auth import SecretAuth
from export_worker.platforms.http.outgoing import Credential
from export_worker.platforms.settings import ConnectionSettings
from export_worker.secrets.secret import Secret

PAGE_ROWS_MIN = 1000
"""The SQL API refuses smaller pages."""

TablePrefix = Annotated[
    str, StringConstraints(max_length=64), Pattern(r"^[A-Za-z0-9_.]*$", "must have only letters, digits, _ and .")
]
TableName = Annotated[
    str,
    StringConstraints(max_length=64),
    Pattern(
        r"^[A-Za-z0-9_]*\{project_id\}[A-Za-z0-9_]*$",
        "must have letters, digits, _ and once {project_id}, such as v_user_{project_id}",
    ),
]
Fragments = tuple[Annotated[str, StringConstraints(min_length=1)], ...]


class ThinkingdataSettings(ConnectionSettings):
    """A ThinkingData connection: its token, and how its deployment differs from others."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    table_prefix: TablePrefix = "ta."
    """Put before each table, at most 64 characters. Published statements have `ta.`, or no prefix. Default `ta.`."""
    cluster_table: TableName = "user_result_cluster_{project_id}"
    """The table with the members of clusters and tags, at most 64 characters. Default
    `user_result_cluster_{project_id}`."""
    user_table: TableName = "v_user_{project_id}"
    """The table with the user properties, at most 64 characters. Default `v_user_{project_id}`."""
    user_columns: Annotated[tuple[Name, ...], Field(min_length=1)] = ("#account_id", "#distinct_id")
    """Columns of the user table that are exported unless a request names others, at least one.

    Default `#account_id` and `#distinct_id`."""
    page_rows: Annotated[int, Field(ge=PAGE_ROWS_MIN)] = 10_000
    """The number of rows on one page of a result. Default 10,000, at least 1,000."""
    join_key: Name = "#user_id"
    """The column of the user table that identifies the members of clusters and tags, 1 to 512 characters. Default
    `#user_id`.

    Clusters of uploaded texts have no `#user_id`. For them it is the column that the texts belong to, such as
    `#account_id`, and `text_id_column` is compared with it as text. A request can name another column."""
    text_id_column: Name = "#varchar_id"
    """The column of the member table with uploaded texts, 1 to 512 characters. Default `#varchar_id`."""
    list_column: Name = "tag_value"
    """The column of the member table with the values of tags that are lists, 1 to 512 characters. No document names
    it. Default `tag_value`."""
    send_project_id: bool = False
    """Send `projectId` with the calls of the SQL API, too. Default: false; the document names it for the other calls.
    """
    sql_timeout_s: Annotated[int, Field(ge=1)] | None = None
    """Seconds after which the platform stops a query, at least 1. Default: none; then nothing is sent."""
    throttled_codes: tuple[int, ...] = (-1005,)
    """Values of `return_code` that ask for fewer calls. Default -1005."""
    retry_codes: tuple[int, ...] = ()
    """Values of `return_code` for temporary failures. All other values are final refusals. Default: none."""
    gone_codes: tuple[int, ...] = (-1008,)
    """Values of `return_code` that mean that an SQL task, or a page of its result, does not exist. Default -1008."""
    gone_messages: Fragments = ("不存在", "过期", "失效", "expired", "not exist", "not found", "no such")
    """Parts of messages that mean the same, whatever the code, in either case. Default: Chinese and English texts."""
    auth_messages: Fragments = ("(token)", "token无效", "token错误", "token过期", "invalid token", "token expired")
    """Parts of messages that mean that the token is refused, in either case. Default: Chinese and English texts."""
    sql_restarts: Annotated[int, Field(ge=0)] = 3
    """How often a query is restarted because its task has expired. Default 3, at least 0."""
    page_retries: Annotated[int, Field(ge=0, le=10)] = 4
    """How often a page is requested again after a temporary failure before the transfer fails. Default 4, 0 to 10."""
    page_retry_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds before the first retry of a page; the wait doubles with each further retry.

    Default 1, above 0, at most 60."""
    row_count_required: bool = True
    """Fail if the platform states no number of rows, because the result cannot be checked. Default: true."""
    list_page_size: Annotated[int, Field(ge=1, le=1000)] = 100
    """The number of clusters on one page of a listing. Default 100, 1 to 1,000."""

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        if self.api_key is not None or self.client_secret is not None:
            raise ValueError("thinkingdata takes neither api_key nor client_secret; give token")
        if self.token is None:
            raise ValueError("token is needed")
        return self


def thinkingdata_auth(name: str, settings: ThinkingdataSettings, redactor: Redactor) -> SecretAuth:
    """Builds the authentication of the connection `name`: its token, sent in the query string.

    The redactor receives the token.

    Raises:
        ConfigError: The token cannot be read, or is empty or not printable. The message names the setting.
    """
    token = Secret(settings.token or SecretStr(""), f"connections.{name}.token", redactor)
    return SecretAuth([token.must(_check_printable)], lambda value: Credential(query={"token": value}))


def _check_printable(token: str, setting: str) -> None:
    if not token or not token.isprintable() or token != token.strip():
        raise ConfigError(f"{setting}: must be printable, without spaces around it")
