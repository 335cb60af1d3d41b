"""How the files of an export shall land."""

import codecs
from operator import not_
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from export_worker.contract.charsets import charset_codec
from export_worker.contract.model import Model, field_rule


def _written_charset(name: str) -> str:
    charset_codec(name)
    return name


Charset = Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(_written_charset)]
"""A charset that Python can write."""
Compression = Literal["none", "gzip", "zstd"]
"""Of the whole file; of the columns, where that is Parquet."""
ColumnType = Literal["string", "int64", "float64", "bool", "date", "timestamp"]
"""What a column of Parquet holds."""


class Output(Model):
    """How the files shall land: bytes as they come, unless something is said here.

    `count_rows` counts the records of CSV and NDJSON, a header line included. `format` makes Parquet out of CSV: each
    column is text, but for those that `schema` gives a type; an empty value is null there.
    """

    # `schema` is a name that pydantic's own models have, so the field has another one in Python.
    model_config = ConfigDict(serialize_by_alias=True)

    charset: Charset | None = None
    compression: Compression = "none"
    # Left out unless they are asked for: a worker that does not know them reads the request, and the fingerprint of one
    # that was accepted before there were such fields is still the same.
    count_rows: Annotated[bool, Field(exclude_if=not_)] = False
    format: Annotated[Literal["parquet"] | None, Field(exclude_if=not_)] = None
    column_types: Annotated[
        Annotated[dict[str, ColumnType], Field(min_length=1)] | None, Field(alias="schema", exclude_if=not_)
    ] = None

    @model_validator(mode="after")
    def _fits_parquet(self) -> Self:
        if self.format is None and self.column_types is not None:
            raise field_rule("schema", 'is for format "parquet" only')
        if self.format is not None and self.charset is not None and codecs.lookup(self.charset).name != "utf-8":
            raise field_rule("charset", "must be UTF-8 or left out: the text of Parquet is UTF-8")
        return self
