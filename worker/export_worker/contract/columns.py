"""What is done to the columns of a file: the names and patterns, and the actions, of a request and of a connection."""

from typing import Annotated

from pydantic import Field, StringConstraints

from export_worker.contract.wording import Pattern

COLUMN_RULES_MAX = 1_000
"""Names and patterns of one request, and of one connection."""
COLUMN_NAME_MAX = 200
"""Characters of a name or a pattern."""

ColumnAction = Annotated[
    str,
    Pattern(
        r"^(keep|drop|hash|mask(:(100|[1-9]?[0-9]))?)$", "must be keep, drop, hash, mask or mask:N, N from 0 to 100"
    ),
]
"""What is done to a column: `keep`, `drop`, `hash`, `mask`, or `mask:N` with N from 0 to 100."""
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=COLUMN_NAME_MAX)]
"""The name of a column, or a pattern in which each `*` stands for any number of characters."""
ColumnChoices = Annotated[dict[ColumnName, ColumnAction], Field(min_length=1, max_length=COLUMN_RULES_MAX)]
"""An action for each name or pattern."""
