"""The statement that selects the users of a cluster or tag, in Presto's dialect. Pure: no I/O."""

from collections.abc import Sequence

from export_worker.contract.request import ThinkingdataClusterUsers
from export_worker.platforms.thinkingdata.settings import ThinkingdataSettings

USER_ID = "#user_id"
TAG_VALUE = "tag_value"


def identifier(name: str) -> str:
    """Returns the name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Returns the text as a string literal. Presto has no backslash escapes, so only a quote can end the literal."""
    return "'" + text.replace("'", "''") + "'"


def columns_of(export: ThinkingdataClusterUsers, settings: ThinkingdataSettings) -> tuple[str, ...]:
    """Returns the columns of the result in order, without duplicates: user columns, `#user_id`, the value of a tag."""
    own = (USER_ID, TAG_VALUE) if export.catalog == "tag" else (USER_ID,)
    return tuple(dict.fromkeys((*(export.columns or settings.user_columns), *own)))


def statement(export: ThinkingdataClusterUsers, cluster: str, settings: ThinkingdataSettings) -> str:
    """Returns the statement that selects the users of a cluster or tag.

    Args:
        export: Names the project and the columns.
        cluster: Name of the cluster or tag, since the table of members has no ids of clusters.
        settings: Name the tables.
    """
    columns = ", ".join(_source(column, export) for column in columns_of(export, settings))
    members = _table(settings.cluster_table, export.project_id, settings)
    users = _table(settings.user_table, export.project_id, settings)
    return (
        f"SELECT {columns} FROM {members} c LEFT JOIN {users} u "  # noqa: S608 - names are quoted, the id is a number
        f"ON c.{identifier(USER_ID)} = u.{identifier(USER_ID)} WHERE c.cluster_name = {literal(cluster)}"
    )


def _source(column: str, export: ThinkingdataClusterUsers) -> str:
    """Returns a column with its table. The table of members has the user's id and, for a tag, the value."""
    if column == TAG_VALUE and export.catalog == "tag":
        return f"c.{TAG_VALUE}"
    return f"{'c' if column == USER_ID else 'u'}.{identifier(column)}"


def _table(template: str, project_id: int, settings: ThinkingdataSettings) -> str:
    """Returns the name of a table. The format `:d` raises for anything but an integer, so nothing can be injected."""
    return settings.table_prefix + template.replace("{project_id}", f"{project_id:d}")


def headers_or(headers: object, columns: Sequence[str]) -> tuple[str, ...]:
    """Returns the platform's names of the columns, or the given ones if the platform returns no names.

    A wide select has no names in the response. If the number of names is not that of the columns, the names are used
    nevertheless: rows with another number of values are refused.
    """
    if isinstance(headers, list) and headers and all(isinstance(name, str) for name in headers):
        # JSON can carry half a surrogate pair, which cannot be encoded.
        return tuple(name.encode(errors="replace").decode() for name in headers)
    return tuple(columns)
