"""The smallest downloads that once became a wrong object in S3, as data.

`head` and `body` are the response, `ask` is what the request asks for, and `lands` has the exact bytes that may be
stored. Without `lands`, the export must fail with a code of its own, and `_SUCCESS` must not exist. With `or_fails`,
both results are right. Other bytes, and a success that is not true, are always wrong. Each case is an example of a
kind.
"""

import gzip
import zlib
from typing import Any

_COMPRESSOR = zlib.compressobj(wbits=31)
CUT = _COMPRESSOR.compress(b"id\n1\n") + _COMPRESSOR.flush(zlib.Z_SYNC_FLUSH)
"""A gzip stream without its end. The row `2` is missing."""
TEXT = b"id\n1\n2\n"
PACKED = gzip.compress(TEXT, mtime=0)
CSV = {"Content-Type": "text/csv"}
EMPTY_TABLE = "a Parquet file with that column and no row"

CASES: list[dict[str, Any]] = [
    {
        "name": "gzip body without its end, right Content-Length",
        "head": {**CSV, "Content-Encoding": "gzip"},
        "body": CUT,
        "lands": None,
        "kind": "a coded body whose framing is whole and whose coding is cut",
    },
    {
        "name": "Content-Encoding: gzip, identity",
        "head": {**CSV, "Content-Encoding": "gzip, identity"},
        "body": PACKED,
        "lands": TEXT,
        "or_fails": True,
        "kind": "codings that two readers read differently",
    },
    {
        "name": "XML error page with status 200",
        "head": {"Content-Type": "application/xml"},
        "body": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "lands": None,
        "kind": "error pages that are neither HTML nor one JSON object",
    },
    {
        "name": "UTF-16LE was asked for, UTF-8 with a byte order mark came",
        "ask": {"export.charset": "UTF-16LE", "output.charset": "UTF-8"},
        "head": CSV,
        "body": b"\xef\xbb\xbfid\n1\n",
        "lands": b"id\n1\n",
        "or_fails": True,
        "kind": "a label that the mark or the first block of the file contradicts",
    },
    {
        "name": "nothing was asked for, UTF-16LE with a mark came",
        "ask": {"output.charset": "UTF-8"},
        "head": CSV,
        "body": b"\xff\xfe" + "id\n中\n".encode("utf-16-le"),
        "lands": "id\n中\n".encode(),
        "kind": "a label that the mark or the first block of the file contradicts",
    },
    {
        "name": "GB2312: the dot in a name",
        "ask": {"export.charset": "GB2312", "output.charset": "UTF-8"},
        "head": CSV,
        "body": "n\n阿·买\n".encode("gbk"),
        "lands": "n\n阿·买\n".encode(),
        "kind": "labels as the web reads them",
    },
    {
        "name": "users.csv.gz sent with Content-Encoding: gzip",
        "file_name": "users.csv.gz",
        "head": {**CSV, "Content-Encoding": "gzip"},
        "body": PACKED,
        "lands": PACKED,
        "kind": "a coding that the name of the file already says",
    },
    {
        "name": "users.csv.gz sent with Content-Encoding: gzip, without its end, right Content-Length",
        "file_name": "users.csv.gz",
        "head": {**CSV, "Content-Encoding": "gzip"},
        "body": CUT,
        "lands": None,
        "kind": "a coding that the name of the file already says",
    },
    {
        "name": "status 200 with the range of a part",
        "head": {**CSV, "Content-Range": "bytes 0-7/600"},
        "body": TEXT,
        "lands": None,
        "kind": "parts that say that they are parts",
    },
    {
        "name": "a head field of 8,200 bytes",
        "head": {**CSV, "X-A": "a" * 8200},
        "body": TEXT,
        "lands": TEXT,
        "kind": "long and odd heads",
    },
    {
        "name": "Content-Encoding: aws-chunked over plain bytes",
        "head": {**CSV, "Content-Encoding": "aws-chunked"},
        "body": TEXT,
        "lands": TEXT,
        "kind": "codings that code nothing, and other names of gzip",
    },
    {
        "name": "an empty file to Parquet with a schema",
        "ask": {"output.format": "parquet", "output.schema": {"id": "int64"}},
        "head": CSV,
        "body": b"",
        "lands": EMPTY_TABLE,
        "kind": "empty segments are a result",
    },
    {
        "name": "two byte order marks",
        "ask": {"output.charset": "UTF-8"},
        "head": CSV,
        "body": b"\xef\xbb\xbf\xef\xbb\xbfid\n1\n",
        "lands": b"id\n1\n",
        "kind": "marks at the start are no data",
    },
]
