"""How a line of an exported file is written."""

import json
from collections.abc import Sequence
from typing import Literal

Layout = Literal["csv", "quoted_csv", "oddly_quoted_csv", "gio_json"]
"""Plain CSV; CSV with every value in quotes; CSV with the odd quotes of GrowingIO's REST document; JSON lines as that
document shows them."""


def header_line(layout: Layout, columns: Sequence[str]) -> str:
    """Returns the header line; empty for JSON lines."""
    match layout:
        case "csv":
            return f"{','.join(columns)}\n"
        case "quoted_csv":
            return f"{_quoted(columns)}\n"
        case "oddly_quoted_csv":
            return f"“{_quoted(columns)[1:]}\n"
        case "gio_json":
            return ""


def row_line(layout: Layout, columns: Sequence[str], values: Sequence[str]) -> str:
    """Returns the line of one user."""
    match layout:
        case "csv":
            return f"{','.join(values)}\n"
        case "quoted_csv":
            return f"{_quoted(values)}\n"
        case "oddly_quoted_csv":
            return f"{_quoted(values)[:-1]}”,\n"
        case "gio_json":
            return f"{_user(columns, values)}\n"


def _quoted(values: Sequence[str]) -> str:
    return ",".join('"{}"'.format(value.strip('"')) for value in values)


def _user(columns: Sequence[str], values: Sequence[str]) -> str:
    """Returns the JSON of a user: id, identities and properties; the id alone if no other column was requested."""
    gio_id, *others = (value.strip('"') for value in values)
    if not others:
        return json.dumps({"gio_id": int(gio_id)})
    pairs = dict(zip(columns[1:], others, strict=True))
    identities = {key: value for key, value in pairs.items() if key.startswith("id")}
    properties = {key: value for key, value in pairs.items() if key not in identities}
    user = {"gio_id": gio_id, "identifications": identities, "properties": properties}
    return json.dumps(user, ensure_ascii=False)
