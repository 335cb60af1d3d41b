"""The statement that selects the users of a cluster or tag (Presto's dialect). Pure."""

from collections.abc import Sequence

from export_worker.contract.request import ThinkingdataClusterUsers
from export_worker.platforms.thinkingdata.settings import ThinkingdataSettings

USER_ID = "#user_id"
TAG_VALUE = "tag_value"


def identifier(name: str) -> str:
    """The name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as a string literal. Presto knows no backslash escapes, so a quote is all that can end it."""
    return "'" + text.replace("'", "''") + "'"


def columns_of(export: ThinkingdataClusterUsers, settings: ThinkingdataSettings) -> tuple[str, ...]:
    """The columns of the result, in order: of the users, then `#user_id`, then a tag's value. None stands twice."""
    own = (USER_ID, TAG_VALUE) if export.catalog == "tag" else (USER_ID,)
    return tuple(dict.fromkeys((*(export.columns or settings.user_columns), *own)))


def statement(export: ThinkingdataClusterUsers, cluster: str, settings: ThinkingdataSettings) -> str:
    """Select the users of a cluster or tag.

    Args:
        export: Says which columns.
        cluster: Its name: the table knows no id.
        settings: Where the tables are.
    """
    columns = ", ".join(_source(column, export) for column in columns_of(export, settings))
    members = _table(settings.cluster_table, export.project_id, settings)
    users = _table(settings.user_table, export.project_id, settings)
    return (
        f"SELECT {columns} FROM {members} c LEFT JOIN {users} u "  # noqa: S608 - names are quoted, the id is a number
        f"ON c.{identifier(USER_ID)} = u.{identifier(USER_ID)} WHERE c.cluster_name = {literal(cluster)}"
    )


def _source(column: str, export: ThinkingdataClusterUsers) -> str:
    """A column with its table: the membership has the user's id and, of a tag, the value."""
    if column == TAG_VALUE and export.catalog == "tag":
        return f"c.{TAG_VALUE}"
    return f"{'c' if column == USER_ID else 'u'}.{identifier(column)}"


def _table(template: str, project_id: int, settings: ThinkingdataSettings) -> str:
    """The table's name; `:d` refuses what is no integer, whoever made the request."""
    return settings.table_prefix + template.replace("{project_id}", f"{project_id:d}")


def headers_or(headers: object, columns: Sequence[str]) -> tuple[str, ...]:
    """The platform's names of the columns, or ours where it gives none that fit (wide selects have none)."""
    if isinstance(headers, list) and len(headers) == len(columns) and all(isinstance(name, str) for name in headers):
        return tuple(headers)
    return tuple(columns)
