"""How the files of one export land: under which names, with which heads, through which transform. Its `output` says."""

import asyncio
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from export_worker.contract.output import Output
from export_worker.contract.request import ExportRequest
from export_worker.errors import TransformError
from export_worker.s3.object_keys import safe_name, unique_names
from export_worker.transfer.transforms.base import Pipeline, Transcoder, Transform, build_transform
from export_worker.transfer.transforms.row_count import RowCounter, is_csv, row_counter_for, with_row_count

PARQUET_TYPE = "application/vnd.apache.parquet"
"""As IANA lists it."""
_PARQUET_MODULE = "export_worker.transfer.transforms.parquet"
_SUFFIX_LENGTH = len(".csv")


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file of an export.

    Args:
        name: Under which it lands; no other file of the export has it.
        source_name: As the platform calls it, made safe.
    """

    name: str
    source_name: str
    output: Output
    charset: str

    @property
    def content_type(self) -> str:
        """`Content-Type`, by the name."""
        if self.output.format == "parquet":
            return PARQUET_TYPE
        return mimetypes.guess_type(self.name)[0] or "application/octet-stream"

    @property
    def content_encoding(self) -> str | None:
        """`Content-Encoding`, which names compressions as we do (RFC 9110; RFC 8878 for zstd)."""
        if self.output.format == "parquet" or self.output.compression == "none":
            return None
        return self.output.compression

    def rows(self) -> RowCounter | None:
        """A fresh counter of its rows; None when they are not asked for, or cannot be counted."""
        return row_counter_for(self.source_name) if self.output.count_rows else None

    def transform(self, rows: RowCounter | None) -> Transform | None:
        """A fresh transform, which counts rows into `rows`; None when the bytes stay as they come.

        Raises:
            TransformError: A charset is unknown or cannot be streamed.
        """
        transform = self._parquet() if self.output.format == "parquet" else self._plain()
        return transform if rows is None else with_row_count(transform, rows, self.charset)

    def _plain(self) -> Transform | None:
        return build_transform(self.charset, self.output.charset, self.output.compression)

    def _parquet(self) -> Transform:
        # Loaded by `plan_output`, off the loop.
        from export_worker.transfer.transforms.parquet import CsvToParquet  # noqa: PLC0415

        to_parquet = CsvToParquet(self.output.column_types or {}, self.output.compression)
        return Pipeline([Transcoder(self.charset, "UTF-8"), to_parquet])


async def plan_output(request: ExportRequest, names: Sequence[str]) -> list[OutputFile]:
    """How each of these files lands, in the same order.

    Args:
        names: As the platform calls the files.

    Raises:
        TransformError: Parquet is asked for, and one of the files is no CSV: who asks for Parquet reads nothing else,
            so a file that was left as it is would be lost on him. Or this worker lacks the extra `parquet`.
    """
    output, source_names = request.output, [safe_name(name) for name in names]
    wanted = source_names
    if output.format == "parquet":
        await _load_parquet()
        wanted = [_parquet_name(name) for name in source_names]
    charset = _charset_of(request)
    return [
        OutputFile(name, source_name, output, charset)
        for name, source_name in zip(unique_names(wanted), source_names, strict=True)
    ]


async def _load_parquet() -> None:
    try:
        # Here, since the extra is a heavy one and few need it; in a thread, since it takes a third of a second.
        await asyncio.to_thread(import_module, _PARQUET_MODULE)
    except ModuleNotFoundError as error:
        advice = "install it there with: pip install 'export-worker[parquet]'"
        raise TransformError(f"output.format: parquet needs {error.name}, which this worker lacks; {advice}") from None


def _parquet_name(name: str) -> str:
    if not is_csv(name):
        raise TransformError(f"output.format: parquet is made of CSV, which {name!r} is not by its name")
    return safe_name(f"{name[:-_SUFFIX_LENGTH]}.parquet")


def _charset_of(request: ExportRequest) -> str:
    """What the platform was asked to write; UTF-8 is its default, as far as anybody knows (no document says)."""
    return getattr(request.export, "charset", None) or "UTF-8"
