"""How the files of an export are written."""

from operator import not_
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from export_worker.contract.charsets import charset
from export_worker.contract.columns import ColumnChoices
from export_worker.contract.model import Model, field_rule


def _written_charset(name: str) -> str:
    charset(name)
    return name


Charset = Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(_written_charset)]
"""A charset of files that Python can write."""
Compression = Literal["none", "gzip", "zstd"]
"""The compression of the whole file, or of the columns of Parquet."""
ColumnType = Literal["string", "int64", "float64", "bool", "date", "timestamp"]
"""The type of a column of Parquet."""


class Output(Model):
    r"""How the files are written. By default the files keep the platform's bytes.

    `count_rows` counts the records of CSV and NDJSON, a header line included. `format` converts CSV to Parquet.
    A column is text unless `schema` gives it a type. In a column with a type, an empty value is null, and so is each of
    `null_values`, such as `NULL` or `\N`.
    """

    # pydantic's models have a method `schema`, so the field has another name in Python.
    model_config = ConfigDict(serialize_by_alias=True)

    charset: Charset | None = None
    """The charset that the text is converted to, 1 to 40 characters. Default: none; then the bytes stay as they are."""
    compression: Compression = "none"
    """The compression of the whole file, or of the columns of Parquet. Default `none`."""
    # The fields below were added later, and are left out of the JSON unless the request sets them. So an older worker
    # can read the request, and the fingerprint of a request from before the fields existed stays the same.
    count_rows: Annotated[bool, Field(exclude_if=not_)] = False
    """Whether the rows of CSV and NDJSON files are counted, including the header line of a CSV file. Default: false."""
    format: Annotated[Literal["parquet"] | None, Field(exclude_if=not_)] = None
    """`parquet` converts CSV files to Parquet. Workers need the extra `parquet`. Default: none."""
    column_types: Annotated[
        Annotated[dict[str, ColumnType], Field(min_length=1)] | None, Field(alias="schema", exclude_if=not_)
    ] = None
    """The types of columns of a Parquet file, by name. Default: every column is text."""
    null_values: Annotated[
        list[Annotated[str, StringConstraints(max_length=40)]] | None,
        Field(min_length=1, max_length=20, exclude_if=not_),
    ] = None
    """With `schema`: 1 to 20 values that mean null in columns with a type, each at most 40 characters. Default:
    none."""

    columns: Annotated[ColumnChoices | None, Field(exclude_if=not_)] = None
    """What is done to columns of CSV and NDJSON, by name or pattern such as `*mail*`: `drop`, `hash`, `mask`, `mask:N`
    or `keep`. 1 to 1,000 entries, names of at most 200 characters. Default: none."""

    @model_validator(mode="after")
    def _fits_parquet(self) -> Self:
        if self.format is None and self.column_types is not None:
            raise field_rule("schema", 'is allowed only with format "parquet"')
        if self.column_types is None and self.null_values is not None:
            raise field_rule("null_values", "is allowed only with schema: a column without a type has no nulls")
        if self.format is not None and self.charset is not None and charset(self.charset).name != "utf-8":
            raise field_rule("charset", "must be UTF-8 or left out: the text of Parquet is UTF-8")
        return self
