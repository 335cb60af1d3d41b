"""The files that one export stores: their names, headers and transforms, as the request's `output` says."""

import asyncio
import mimetypes
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from importlib import import_module

from export_worker.contract.file_names import JSON_EXTENSIONS, extension_of
from export_worker.contract.output import Compression, Output
from export_worker.contract.request import ExportRequest
from export_worker.credentials import Redactor
from export_worker.errors import TransformError
from export_worker.s3.object_keys import RESERVED_NAMES, safe_name, unique_names
from export_worker.transfer.transforms.base import Pipeline, Transcoder, Transform, build_transform, compressor
from export_worker.transfer.transforms.column_rules import ColumnActions, ColumnPolicy, ColumnRules
from export_worker.transfer.transforms.json_columns import JsonColumns
from export_worker.transfer.transforms.row_count import RowCounter, is_csv, row_counter_for, with_row_count
from export_worker.transfer.transforms.written_text import WrittenText

PARQUET_TYPE = "application/vnd.apache.parquet"
"""The media type of Parquet in IANA's list."""
COMPRESSED_TYPES = {".gz": "application/gzip", ".zst": "application/zstd"}
"""The media types of compressed files (RFC 6713, RFC 8878)."""
COMPRESSED_SUFFIXES: dict[Compression, str] = {"gzip": ".gz", "zstd": ".zst"}
"""What `output.compression` adds to the name of a file."""
_PARQUET_MODULE = "export_worker.transfer.transforms.parquet"
_CSV_COLUMNS_MODULE = "export_worker.transfer.transforms.csv_columns"
_SUFFIX_LENGTH = len(".csv")


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file of an export.

    Args:
        name: Its name in S3; unique within the export.
        source_name: Its name at the platform, made safe.
        output: The request's `output`.
        charset: Charset that the platform was asked for; None if it was not asked.
        rules: What is done to its columns; None keeps them.
    """

    name: str
    source_name: str
    output: Output
    charset: str | None
    rules: ColumnRules | None = None

    @property
    def content_type(self) -> str:
        """`Content-Type`, by the name. A compressed file has the type of its compression, and no `Content-Encoding`.

        Readers of folders go by the name. Some undo a `Content-Encoding` as well, and others do not.
        """
        if self.output.format == "parquet":
            return PARQUET_TYPE
        compressed = COMPRESSED_TYPES.get(extension_of(self.name))
        return compressed or mimetypes.guess_type(self.name)[0] or "application/octet-stream"

    def rows(self) -> RowCounter | None:
        """Returns a new counter of the file's rows; None if no count is requested, or rows cannot be counted."""
        return row_counter_for(self.source_name) if self.output.count_rows else None

    def actions(self) -> ColumnActions | None:
        """Returns a new note of what is done to each column of the file; None if its columns are kept."""
        return None if self.rules is None else ColumnActions(self.rules)

    def transform(
        self, rows: RowCounter | None, redactor: Redactor | None = None, actions: ColumnActions | None = None
    ) -> Transform | None:
        """Returns a new transform, which counts rows into `rows`; None if the bytes are stored unchanged.

        Args:
            redactor: Masks secrets in the names of columns, which messages contain.
            actions: What `actions` returned. The transform notes in it what it does to each column.

        Raises:
            TransformError: A charset is unknown or cannot be streamed.
        """
        transform = self._parquet(redactor, actions) if self.output.format == "parquet" else self._plain(actions)
        return transform if rows is None else with_row_count(transform, rows, self.charset)

    def _plain(self, actions: ColumnActions | None) -> Transform | None:
        output = self.output
        if actions is None:
            return build_transform(self.charset, output.charset, output.compression)
        to_utf_8 = Transcoder(self.charset, "UTF-8")
        written = WrittenText(to_utf_8.source, output.charset)
        return Pipeline([to_utf_8, self._columns(actions), written, *compressor(output.compression)])

    def _columns(self, actions: ColumnActions) -> Transform:
        if not is_csv(self.source_name):
            return JsonColumns(actions)
        # `plan_output` has loaded the module already, in a thread.
        from export_worker.transfer.transforms.csv_columns import CsvColumns  # noqa: PLC0415

        return CsvColumns(actions)

    def _parquet(self, redactor: Redactor | None, actions: ColumnActions | None) -> Transform:
        # `plan_output` has loaded the module already, in a thread.
        from export_worker.transfer.transforms.parquet import CsvToParquet  # noqa: PLC0415

        output = self.output
        nulls = output.null_values or ()
        to_parquet = CsvToParquet(
            output.column_types or {}, output.compression, nulls, redactor=redactor, actions=actions
        )
        return Pipeline([Transcoder(self.charset, "UTF-8"), to_parquet])


async def plan_output(
    request: ExportRequest,
    names: Sequence[str],
    reserved: AbstractSet[str] = RESERVED_NAMES,
    rules: ColumnRules | None = None,
) -> list[OutputFile]:
    """Returns the output file of each of these source files, in the same order.

    Args:
        names: Names of the files at the platform.
        reserved: Names that no file may have.
        rules: What is done to the columns, by `column_rules`.

    Raises:
        TransformError: Parquet is requested, but the name of a file does not end with .csv, the columns of such a file
            cannot be changed, or the extra `parquet` is not installed at this worker.
    """
    output, source_names = request.output, [safe_name(name) for name in names]
    wanted = source_names
    if rules is not None:
        await _check_columns(source_names)
    if output.format == "parquet":
        await _load(_PARQUET_MODULE, "output.format: parquet")
        wanted = [_parquet_name(name) for name in source_names]
    elif output.compression != "none":
        wanted = [safe_name(name + COMPRESSED_SUFFIXES[output.compression]) for name in source_names]
    charset = _charset_of(request)
    return [
        OutputFile(name, source_name, output, charset, rules)
        for name, source_name in zip(unique_names(wanted, reserved), source_names, strict=True)
    ]


def column_rules(request: ExportRequest, policy: ColumnPolicy) -> ColumnRules | None:
    """Returns what is done to the columns of an export; None if they are kept.

    Raises:
        TransformError: A column is to be hashed, and the connection has no key.
    """
    requested = request.output.columns
    if requested is None and not policy.is_binding:
        return None
    rules = ColumnRules(requested or {}, policy)
    if rules.uses_hash and rules.hashing is None:
        raise TransformError(
            f"output.columns: hash needs the setting connections.{request.connection}.column_policy.key, "
            "which is not set at this worker"
        )
    return rules


async def _check_columns(names: Sequence[str]) -> None:
    for name in names:
        if not is_csv(name) and extension_of(name) not in JSON_EXTENSIONS:
            raise TransformError(
                f"output.columns or column_policy of the connection needs CSV or NDJSON files, but the name {name!r} "
                "ends otherwise"
            )
    if any(map(is_csv, names)):
        await _load(_CSV_COLUMNS_MODULE, "output.columns")


async def _load(module: str, field: str) -> None:
    try:
        # Imported here, because the extra is large and few exports need it. In a thread, because it takes 0.3 s.
        await asyncio.to_thread(import_module, module)
    except ModuleNotFoundError as error:
        # The requester reads this error, so the command does not depend on where the worker runs.
        advice = "install the extra parquet there, in a checkout of export-worker: pip install '.[parquet]'"
        raise TransformError(f"{field} needs {error.name}, which is not installed at this worker; {advice}") from None


def _parquet_name(name: str) -> str:
    if not is_csv(name):
        raise TransformError(f"output.format: parquet needs CSV files, but the name {name!r} does not end with .csv")
    return safe_name(f"{name[:-_SUFFIX_LENGTH]}.parquet")


def _charset_of(request: ExportRequest) -> str | None:
    """Returns the charset that the request asks of the platform."""
    return getattr(request.export, "charset", None)
