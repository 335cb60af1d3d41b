"""The statement that selects the users of a cluster or tag, in Presto's dialect. Pure: no I/O."""

from collections.abc import Sequence

from export_worker.contract.request import TagType, ThinkingdataClusterUsers
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
    """Returns the columns of the result in order, without duplicates.

    First the user columns, then the column that identifies the members, `#user_id`, and the value of a tag.
    """
    value = (TAG_VALUE,) if export.catalog == "tag" else ()
    chosen = export.columns or settings.user_columns
    return tuple(dict.fromkeys((*chosen, _join_key(export, settings), USER_ID, *value)))


def statement(export: ThinkingdataClusterUsers, cluster: str, settings: ThinkingdataSettings) -> str:
    """Returns the statement that selects the users of a cluster or tag.

    Args:
        export: Names the project and the columns.
        cluster: Name of the cluster or tag, since the table of members has no ids of clusters.
        settings: Name the tables.
    """
    columns = ", ".join(_source(column, export, settings) for column in columns_of(export, settings))
    members = _table(settings.cluster_table, export.project_id, settings)
    users = _table(settings.user_table, export.project_id, settings)
    return (
        f"SELECT {columns} FROM {members} c LEFT JOIN {users} u "  # noqa: S608 - names are quoted, the id is a number
        f"ON {_condition(export, settings)} WHERE c.cluster_name = {literal(cluster)}"
    )


def _join_key(export: ThinkingdataClusterUsers, settings: ThinkingdataSettings) -> str:
    return export.join_key or settings.join_key


def _condition(export: ThinkingdataClusterUsers, settings: ThinkingdataSettings) -> str:
    """Returns what connects a member with a user: the same number, or a text of any type of column."""
    key = _join_key(export, settings)
    if key == USER_ID:
        return f"c.{identifier(USER_ID)} = u.{identifier(USER_ID)}"
    return f"c.{identifier(settings.text_id_column)} = CAST(u.{identifier(key)} AS varchar)"


def _source(column: str, export: ThinkingdataClusterUsers, settings: ThinkingdataSettings) -> str:
    """Returns a column with its table. What identifies a member is in the table of members, also for unknown users."""
    key = _join_key(export, settings)
    if column == TAG_VALUE and export.catalog == "tag":
        return _value(export.tag_type or "text", settings)
    if column != key:
        return f"u.{identifier(column)}"
    if key == USER_ID:
        return f"c.{identifier(USER_ID)}"
    return f"c.{identifier(settings.text_id_column)} AS {identifier(key)}"


def _value(tag_type: TagType, settings: ThinkingdataSettings) -> str:
    """Returns the column with the values of a tag. In the file it has the same name for each type."""
    columns = {"text": TAG_VALUE, "number": "tag_value_num", "time": "tag_value_tm", "list": settings.list_column}
    column = columns[tag_type]
    return f"c.{TAG_VALUE}" if column == TAG_VALUE else f"c.{identifier(column)} AS {TAG_VALUE}"


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
