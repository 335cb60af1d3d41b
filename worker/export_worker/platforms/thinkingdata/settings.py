"""What a ThinkingData connection can be told. All that no document of the platform confirms is a setting."""

from typing import Annotated, Self

from pydantic import ConfigDict, Field, SecretStr, StringConstraints, model_validator

from export_worker.credentials import Redactor, reveal
from export_worker.errors import ConfigError
from export_worker.platforms.http.auth import StaticAuth
from export_worker.platforms.http.client import Credential
from export_worker.platforms.settings import ConnectionSettings

PAGE_ROWS_MIN = 1000
"""The SQL API takes no smaller page."""

TablePrefix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]*$", max_length=64)]
TableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]*\{project_id\}[A-Za-z0-9_]*$", max_length=64)]
Column = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
Fragments = tuple[Annotated[str, StringConstraints(min_length=1)], ...]


class ThinkingdataSettings(ConnectionSettings):
    """A ThinkingData connection: its token, and how its deployment differs from what is usual.

    Args:
        table_prefix: Before each table; public statements are seen with `ta.` and without.
        cluster_table: Members of clusters and tags.
        user_table: User properties.
        user_columns: Exported of the user table unless a request names its own.
        page_rows: Rows of one page of a result.
        sql_timeout_s: Handed to the platform, if set: it gives up a query that takes longer.
        throttled_codes: `return_code`s that ask for fewer calls.
        retry_codes: `return_code`s that pass by themselves. All others mean no, for good.
        gone_codes: `return_code`s by which the SQL API says that a task or a page of it is not there.
        gone_messages: Parts of messages that say the same, whatever their code; in any case.
        auth_messages: Parts of messages that refuse the token; in any case.
        sql_restarts: How often a query is begun anew because its task has gone.
        page_retries: How often a page that is refused for now is asked for again before the transfer fails.
        page_retry_s: Wait before the first of these; each further one is twice the one before.
        row_count_required: Refuse a result whose number of rows the platform does not tell: it cannot be checked.
        list_page_size: Clusters on one page of a listing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    table_prefix: TablePrefix = "ta."
    cluster_table: TableName = "user_result_cluster_{project_id}"
    user_table: TableName = "v_user_{project_id}"
    user_columns: Annotated[tuple[Column, ...], Field(min_length=1)] = ("#account_id", "#distinct_id")
    page_rows: Annotated[int, Field(ge=PAGE_ROWS_MIN)] = 10_000
    sql_timeout_s: Annotated[int, Field(ge=1)] | None = None
    throttled_codes: tuple[int, ...] = (-1005,)
    retry_codes: tuple[int, ...] = ()
    gone_codes: tuple[int, ...] = (-1008,)
    gone_messages: Fragments = ("不存在", "过期", "失效", "expired", "not exist", "not found", "no such")
    auth_messages: Fragments = ("(token)", "token无效", "token错误", "token过期", "invalid token", "token expired")
    sql_restarts: Annotated[int, Field(ge=0)] = 3
    page_retries: Annotated[int, Field(ge=0, le=10)] = 4
    page_retry_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    row_count_required: bool = True
    list_page_size: Annotated[int, Field(ge=1, le=1000)] = 100

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        if self.api_key is not None or self.client_secret is not None:
            raise ValueError("thinkingdata takes neither api_key nor client_secret; give token")
        if self.token is None:
            raise ValueError("token is needed")
        return self


def thinkingdata_auth(name: str, settings: ThinkingdataSettings, redactor: Redactor) -> StaticAuth:
    """The token, to stand in the query string of each call. The redactor learns it.

    Raises:
        ConfigError: It cannot be read, or is none. Names the setting.
    """
    setting = f"connections.{name}.token"
    token = reveal(settings.token or SecretStr(""), setting)
    redactor.add(token)
    if not token or not token.isprintable() or token != token.strip():
        raise ConfigError(f"{setting}: must be printable, without spaces around it")
    return StaticAuth(Credential(query={"token": token}))
