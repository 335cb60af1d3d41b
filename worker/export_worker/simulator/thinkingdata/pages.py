"""The pages of an SQL result: their rows, and the changes that faults make to them."""

import asyncio
import csv
import io
import json
from dataclasses import dataclass
from functools import lru_cache

from aiohttp import web

from export_worker.simulator.answers import abort_connection
from export_worker.simulator.files import FileSpec, content
from export_worker.simulator.scenario import Fault

PIECE_BYTES = 64 * 1024

_ODD_VALUES = {",北京": ",“北京”", ",上海": ',上"海', ",广州": ',"广\n""州"'}
"""Curly quotes, a single quote within a value, and a quoted value with a line end and a doubled quote."""


def with_odd_quotes(text: str) -> str:
    """Returns the CSV with quotes of all kinds in its values. The number of rows does not change."""
    for plain, odd in _ODD_VALUES.items():
        text = text.replace(plain, odd)
    return text


def page_count(rows: int, page_rows: int) -> int:
    """Returns the number of pages of a result. An empty result has none."""
    return -(-rows // page_rows)


@lru_cache(maxsize=4)
def _rows(spec: FileSpec) -> tuple[str, ...]:
    """Returns the rows below the header. They are cached, because a result is requested page by page."""
    return tuple(b"".join(content(spec)).decode(spec.codec).split("\n")[1:-1])


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a task.

    Args:
        spec: The rows.
        page_rows: The number of rows on a page.
        format: `csv` or `json`.
        empty: The positions of columns without values.
    """

    spec: FileSpec
    page_rows: int
    format: str
    empty: tuple[int, ...] = ()


def page_text(result: Result, number: int, fault: Fault | None) -> str:
    """Returns one page, with the change that the fault asks for."""
    spec, page_rows = result.spec, result.page_rows
    name = None if fault is None else fault.fault
    lines = list(_rows(spec)[number * page_rows : (number + 1) * page_rows])
    if result.empty:
        lines = [_with_empty(line, result.empty) for line in lines]
    if name == "odd_quotes":
        lines = [with_odd_quotes(line) for line in lines]
    if result.format == "json":
        lines = [json.dumps(row, ensure_ascii=False) for row in csv.reader(lines)]
    if name == "envelope_line":
        envelope = {"data": {"headers": list(spec.columns)}, "return_code": 0, "return_message": "success"}
        lines.insert(0, json.dumps(envelope, ensure_ascii=False))
    end = "\r\n" if name == "crlf" else "\n"
    text = "".join(line + end for line in lines)
    return text.removesuffix(end) if name == "no_final_newline" else text


def _with_empty(line: str, empty: tuple[int, ...]) -> str:
    values = next(csv.reader([line]))
    written = io.StringIO()
    csv.writer(written, lineterminator="").writerow(
        "" if position in empty else value for position, value in enumerate(values)
    )
    return written.getvalue()


async def send_page(
    request: web.Request, text: str, *, fault: Fault | None, bytes_per_s: float | None
) -> web.StreamResponse:
    """Sends a page, or the part of it that the fault leaves."""
    body = text.encode()
    response = web.StreamResponse()
    response.content_type = "text/plain"
    response.content_length = len(body)
    await response.prepare(request)
    cut = fault is not None and fault.fault in {"cut", "short"}
    if cut and fault is not None:
        body = body[: len(body) // 2 if fault.after_bytes is None else fault.after_bytes]
    for start in range(0, len(body), PIECE_BYTES):
        piece = body[start : start + PIECE_BYTES]
        if bytes_per_s is not None:
            await asyncio.sleep(len(piece) / bytes_per_s)
        await response.write(piece)
    if cut:
        abort_connection(request)
    return response
