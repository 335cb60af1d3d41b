"""What downloads become, through a real worker, over sockets: each case of `data.downloads`, and more of its kind."""

import gzip
import zlib
from collections import defaultdict
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import zstandard
from pyarrow import parquet

from data.downloads import CASES, CUT, EMPTY_TABLE, PACKED, TEXT
from support import download_cases
from support.download_cases import CSV, Case, chunked
from support.noise import noise
from support.worker_site import Site

GZIP = "Content-Encoding: gzip"
ZSTD = zstandard.ZstdCompressor(write_checksum=True).compress(TEXT)


@pytest.fixture
def site(redis_url: str, s3_url: str, namespace: str, bucket: str, outputs: Path) -> Site:
    """A site whose worker fails an export after two attempts. The platform of its connection is that of the cases."""
    site = Site(redis_url, s3_url, "http://127.0.0.1:1", namespace, bucket, outputs)
    site.connection = {"resubmit": "never"}  # a repetition would take half a minute
    site.settings = {"retry": {"first_s": 0.02, "max_s": 0.1, "max_attempts": 2}}
    return site


def is_empty_table(data: bytes) -> bool:
    """Whether an object is a Parquet file with the column `id` and no row."""
    table = parquet.read_table(BytesIO(data))
    return bool(table.num_rows == 0 and table.column_names == ["id"])


def given_case(case: dict[str, Any]) -> Case:
    return Case(
        case["name"],
        case["body"],
        [f"{name}: {value}" for name, value in case["head"].items()],
        ask=case.get("ask", {}),
        file_name=case.get("file_name", "users.csv"),
        lands=is_empty_table if case["lands"] == EMPTY_TABLE else case["lands"],
        or_fails=case.get("or_fails", False),
    )


def cut(wbits: int) -> bytes:
    """Returns a stream that ends between two blocks."""
    compressor = zlib.compressobj(wbits=wbits)
    return compressor.compress(b"id\n1\n") + compressor.flush(zlib.Z_SYNC_FLUSH)


def text_of(label: str | None = None, **output: Any) -> dict[str, Any]:
    """Asks for UTF-8 from a platform that is asked for a charset, or not."""
    asked = {} if label is None else {"export.charset": label}
    return {"output.charset": "UTF-8", **asked, **output}


def table_of(label: str | None = None) -> dict[str, Any]:
    asked = {} if label is None else {"export.charset": label}
    return {"output.format": "parquet", "output.schema": {"id": "int64"}, **asked}


INTERRUPTED = "the body is not whole"
MORE: dict[str, list[Case]] = {
    "a coded body whose framing is whole and whose coding is cut": [
        Case("until the connection closes", CUT, [CSV, GZIP, "X-No-Framing: 1"], says=INTERRUPTED),
        Case("in chunks", chunked(CUT), [CSV, GZIP, "Transfer-Encoding: chunked"], says=INTERRUPTED),
        Case("as a transfer coding", chunked(CUT), [CSV, "Transfer-Encoding: gzip, chunked"], says=INTERRUPTED),
        Case("in the second member", PACKED + CUT, [CSV, GZIP], says=INTERRUPTED),
        Case("in the head of the second member", PACKED + PACKED[:5], [CSV, GZIP], says=INTERRUPTED),
        Case("before the trailer", PACKED[:-8], [CSV, GZIP], says=INTERRUPTED),
        Case("with another length in the trailer", PACKED[:-4] + b"\x09\0\0\0", [CSV, GZIP], says=INTERRUPTED),
        Case("deflate", cut(15), [CSV, "Content-Encoding: deflate"], says=INTERRUPTED),
        Case("bare deflate", cut(-15), [CSV, "Content-Encoding: deflate"], says=INTERRUPTED),
        Case("zstd without its checksum", ZSTD[:-4], [CSV, "Content-Encoding: zstd"], says=INTERRUPTED),
        Case("zstd in the second frame", ZSTD + ZSTD[:9], [CSV, "Content-Encoding: zstd"], says=INTERRUPTED),
        Case("chunks without the last one", chunked(TEXT)[:-5], [CSV, "Transfer-Encoding: chunked"]),
    ],
    "codings that two readers read differently": [
        Case("two fields", PACKED, [CSV, "Content-Encoding: identity", GZIP], lands=TEXT),
        Case("empty members", PACKED, [CSV, "Content-Encoding: , ,gzip,"], lands=TEXT),
        Case("two times", gzip.compress(PACKED), [CSV, GZIP, "Content-Encoding: x-gzip"], lands=TEXT),
        Case("named two times, applied once", PACKED, [CSV, GZIP, GZIP]),
        Case("zstd over gzip", zstandard.compress(PACKED), [CSV, "Content-Encoding: gzip, zstd"], lands=TEXT),
        Case("with a parameter", PACKED, [CSV, "Content-Encoding: gzip;q=1.0"], lands=TEXT, or_fails=True),
        Case("unknown below gzip", gzip.compress(TEXT), [CSV, "Content-Encoding: br, gzip"], says="undone: br"),
        Case("chunks below gzip", gzip.compress(chunked(TEXT)), [CSV, "Transfer-Encoding: chunked, gzip"]),
        Case("chunks that are not the last", chunked(TEXT), [CSV, "Transfer-Encoding: chunked, identity"]),
        Case("chunks two times", chunked(TEXT), [CSV, "Transfer-Encoding: chunked, chunked"]),
        Case(
            "a length beside chunks",
            chunked(TEXT),
            [CSV, "Content-Length: 7", "Transfer-Encoding: chunked"],
            lands=TEXT,
            or_fails=True,
        ),
    ],
    "error pages that are neither HTML nor one JSON object": [
        Case("XHTML", b"id\n1\n", ["Content-Type: application/xhtml+xml"], says="application/xhtml+xml"),
        Case("a problem", b"id\n1\n", ["Content-Type: application/problem+json"], says="application/problem+json"),
        Case("two types", b"id\n1\n", ["Content-Type: text/html,text/csv"], says="text/html"),
        Case("several bodies", b"id\n1\n", ["Content-Type: multipart/mixed; boundary=b"], says="multipart/mixed"),
        Case("XML without its type", b"<?xml version='1.0'?><Error/>", says="an XML document"),
        Case("a comment first", b"\n<!-- proxy --><p>gone", says="a page of markup"),
        Case("a script first", b"<script>location='/login'</script>", says="a page of markup"),
        Case("a JSON array", b'[{"code": 401}]', says="a JSON array"),
        Case("a long JSON array", b'[["id", 1],' + b"[1, 2]," * 20_000, says="begins like JSON"),
        Case("a cut JSON object", b'{"code": 500, "message": "int', says="begins like JSON"),
        Case("plain words", b"upstream connect error or disconnect/reset before headers, reset", says="a message"),
        Case("plain words in Chinese", "系统繁忙\uff0c请稍后再试".encode("gbk"), says="a message"),
        Case("a code", b"NoSuchKey", says="a message"),
        Case("words below gzip", gzip.compress(b"Access Denied"), [CSV, GZIP], says="a message"),
        Case("words for a gzip file", b"Access Denied", file_name="users.csv.gz", says="a message"),
        Case("words for JSON", b"Access Denied", file_name="users.json", says="a message"),
        Case("a header alone", "用户,状态\n".encode(), lands="用户,状态\n".encode()),
        Case("a header of two words", b"Access Level\n", lands=b"Access Level\n"),
        Case("names beside words of errors", b"full name\nReset Me\n", lands=b"full name\nReset Me\n"),
        Case("a JSON error for JSON", b'{"error":"token expired"}', file_name="users.json", says="a JSON message"),
        Case("a page of 2 MiB", b"<Error>" + b"x" * 2**21, says="a page of markup"),
    ],
    "a label that the mark or the first block of the file contradicts": [
        Case("GBK over UTF-8", "id,名\n1,中\n".encode(), ask=text_of("GBK"), says="its beginning is UTF-8"),
        Case("GBK, UTF-8 after the first block", b"id\n" * 2000 + "中文\n".encode(), ask=text_of("GBK"), says="UTF-8"),
        Case("latin1 over UTF-8", "id,é\n".encode(), ask=text_of("latin1"), says="its beginning is UTF-8"),
        Case("UTF-16LE over GBK", "id,名\n1,中\n".encode("gbk"), ask=text_of("UTF-16LE"), says="single bytes"),
        Case("UTF-16 over the other order", "id\n中\n".encode("utf-16-be"), ask=text_of("UTF-16"), says="UTF-16BE"),
        Case("UTF-8 over UTF-16 with a mark", "\ufeffid\n".encode("utf-16-be"), ask=text_of("UTF-8"), says="UTF-16BE"),
        Case("UTF-32 without a mark", "id\n中\n".encode("utf-32-le"), ask=text_of("latin1"), says="UTF-32LE"),
        Case("UTF-16 without a label or a mark", "id\n中\n".encode("utf-16-le"), ask=text_of(), says="UTF-16LE"),
        Case("GBK with the mark of GB18030", b"\x84\x31\x95\x33id\n", ask=text_of("GBK"), lands=b"id\n"),
        Case("GBK that is GBK", "id\n联通\n".encode("gbk"), ask=text_of("GBK"), lands="id\n联通\n".encode()),
        Case("UTF-16 without a mark", "id,名\n".encode("utf-16-le"), ask=text_of("UTF-16"), lands="id,名\n".encode()),
        Case("UTF-16 of one word", '"id"'.encode("utf-16-be"), ask=text_of(), says="UTF-16BE"),
        Case("gzip", PACKED, ask=text_of("latin1"), says="compressed (gzip)"),
        Case("gzip by its name", PACKED, ask=text_of("koi8-r"), file_name="u.csv.gz", says="compressed (gzip)"),
        Case("gzip to Parquet", PACKED, ask=table_of("latin1"), says="compressed (gzip)"),
        Case("to Parquet", "id,名\n1,中\n".encode(), ask=table_of("GBK"), says="its beginning is UTF-8"),
        Case(
            "counting rows",
            "\ufeffid\n1\n".encode("utf-16-le"),
            ask={"export.charset": "UTF-8", "output.count_rows": True},
            lands="\ufeffid\n1\n".encode("utf-16-le"),
            says_rows=None,
        ),
    ],
    "labels as the web reads them": [
        Case("the euro of GBK", b"n\n\x80\n", ask=text_of("cp936"), lands="n\n€\n".encode()),
        Case("a rare character of GB18030", "n\n㐂\n".encode("gb18030"), ask=text_of("gbk"), lands="n\n㐂\n".encode()),
        Case("the tilde of Japan", b"n\n\x81\x60\n", ask=text_of("Shift_JIS"), lands="n\n\uff5e\n".encode()),
        Case("circled numbers", b"n\n\x87\x40\n", ask=text_of("sjis"), lands="n\n①\n".encode()),
        Case("the dot of Taiwan", b"n\n\xa1\x45\n", ask=text_of("big5"), lands="n\n‧\n".encode()),
        Case("syllables beyond KS C 5601", "n\n똠\n".encode("cp949"), ask=text_of("euc-kr"), lands="n\n똠\n".encode()),
        Case("the euro of windows-1252", b"n\n\x80\n", ask=text_of("latin1"), lands="n\n€\n".encode()),
        Case("to a label", "n\n€·\n".encode(), ask={"output.charset": "GB2312"}, lands=b"n\n\x80\xa1\xa4\n"),
    ],
    "a coding that the name of the file already says": [
        Case("x-gzip", PACKED, [CSV, "Content-Encoding: x-gzip"], file_name="USERS.CSV.GZ", lands=PACKED),
        Case("zstd", ZSTD, [CSV, "Content-Encoding: zstd"], file_name="users.csv.zst", lands=ZSTD),
        Case("tgz", PACKED, [CSV, GZIP], file_name="users.tgz", lands=PACKED),
        Case("beside identity", PACKED, [CSV, GZIP, "Content-Encoding: identity"], file_name="u.csv.gz", lands=PACKED),
        Case("in chunks", chunked(PACKED), [CSV, GZIP, "Transfer-Encoding: chunked"], file_name="u.gz", lands=PACKED),
        Case("below another", gzip.compress(PACKED), [CSV, GZIP, GZIP], file_name="u.csv.gz", lands=PACKED),
        Case("without a coding", PACKED, file_name="users.csv.gz", lands=PACKED),
        Case(
            "cut, in chunks",
            chunked(CUT),
            [CSV, GZIP, "Transfer-Encoding: chunked"],
            file_name="u.gz",
            says=INTERRUPTED,
        ),
        Case("cut, until the end", CUT, [CSV, GZIP, "X-No-Framing: 1"], file_name="u.csv.gz", says=INTERRUPTED),
        Case("cut below another", gzip.compress(CUT), [CSV, GZIP, GZIP], file_name="u.csv.gz", says=INTERRUPTED),
        Case("cut zstd", ZSTD[:-4], [CSV, "Content-Encoding: zstd"], file_name="u.csv.zst", says=INTERRUPTED),
        Case(
            "cut, in several parts, and the rest can be requested",
            gzip.compress(noise(3, 9), 0)[:-5],
            [CSV, GZIP, 'ETag: "1"'],
            file_name="u.csv.gz",
            says=INTERRUPTED,
            ranges=True,
        ),
        Case("text", TEXT, [CSV, GZIP], file_name="u.csv.gz", says=INTERRUPTED),
        Case("nothing", b"", [CSV, GZIP], file_name="u.csv.gz", lands=b""),
        Case(
            "another coding",
            zstandard.compress(PACKED),
            [CSV, "Content-Encoding: zstd"],
            file_name="u.csv.gz",
            lands=PACKED,
        ),
    ],
    "parts that say that they are parts": [
        Case("the end", TEXT, [CSV, "Content-Range: bytes 592-599/600"], says="bytes 592-599 of 600 with HTTP 200"),
        Case("all of it", TEXT, [CSV, "Content-Range: bytes 0-7/8"], lands=TEXT),
        Case("nothing readable", TEXT, [CSV, "Content-Range: 8"], lands=TEXT),
    ],
    "long and odd heads": [
        Case("60,000 bytes", TEXT, [CSV, "Set-Cookie: " + "c" * 60_000], lands=TEXT),
        Case("290 fields", TEXT, [CSV, *(f"X-{number}: 1" for number in range(290))], lands=TEXT),
        Case(
            "290 fields of 200 bytes", TEXT, [CSV, *(f"X-{number}: {'b' * 200}" for number in range(290))], lands=TEXT
        ),
        Case("100 cookies", TEXT, [CSV, *["Set-Cookie: a=b; Path=/"] * 100], lands=TEXT),
        Case("a name of 8,200 bytes", TEXT, [CSV, f"X-{'n' * 8200}: 1"], lands=TEXT),
        Case("too long", TEXT, [CSV, "X-A: " + "a" * 2**20], lands=TEXT, or_fails=True),
        Case("too many", TEXT, [CSV, *(f"X-{number}: 1" for number in range(10_000))], lands=TEXT, or_fails=True),
        Case(
            "bytes that are no text", TEXT, [CSV, b"Content-Disposition: attachment; filename=\xd3\xc3.csv"], lands=TEXT
        ),
        Case("a type that is no text", TEXT, [b"Content-Type: text/\xff\xfe"], lands=TEXT),
        Case("early hints", b"HTTP/1.1 103 x\r\nLink: </a>\r\n\r\n" + Case("", TEXT).response(), raw=True, lands=TEXT),
        Case(
            "a redirect to a name that is none",
            download_cases.redirect(b"http://xn--/"),
            raw=True,
            says="cannot be used",
        ),
        Case("a redirect to no host", download_cases.redirect(b"http://[::1"), raw=True, says="redirect"),
    ],
    "heads and codings of answers, after which no submit is repeated": [
        Case("60,000 bytes", TEXT, answer_head=["Set-Cookie: " + "c" * 60_000], lands=TEXT),
        Case("250 fields", TEXT, answer_head=[f"X-{number}: 1" for number in range(250)], lands=TEXT),
        Case("gzip", TEXT, answer_head=[GZIP], answer_body=gzip.compress, lands=TEXT),
        Case("deflate", TEXT, answer_head=["Content-Encoding: deflate"], answer_body=zlib.compress, lands=TEXT),
        Case("zstd", TEXT, answer_head=["Content-Encoding: zstd"], answer_body=zstandard.compress, lands=TEXT),
        Case("nothing coded", TEXT, answer_head=["Content-Encoding: utf-8, identity"], lands=TEXT),
        Case("a mark", TEXT, answer_body=lambda body: b"\xef\xbb\xbf" + body, lands=TEXT),
        Case("brotli", TEXT, answer_head=["Content-Encoding: br"], says="cannot be undone: br"),
        Case(
            "cut gzip",
            TEXT,
            answer_head=[GZIP],
            answer_body=lambda body: gzip.compress(body)[:-1],
            says="gzip coding is cut",
        ),
        Case("a length beside chunks", TEXT, answer_head=["Transfer-Encoding: chunked"], says="not valid HTTP"),
    ],
    "codings that code nothing, and other names of gzip": [
        Case("none", TEXT, [CSV, "Content-Encoding: none"], lands=TEXT),
        Case("a charset", TEXT, [CSV, "Content-Encoding: GB2312"], lands=TEXT),
        Case("binary", TEXT, [CSV, "Content-Encoding: Binary"], lands=TEXT),
        Case("nothing", TEXT, [CSV, "Content-Encoding:"], lands=TEXT),
        Case("beside gzip", PACKED, [CSV, "Content-Encoding: aws-chunked,X-GZip"], lands=TEXT),
        Case("chunks in the data", chunked(TEXT), [CSV, "Content-Encoding: aws-chunked"], says="framing of its chunks"),
        Case("a media type", PACKED, [CSV, "Content-Encoding: application/gzip"], lands=TEXT),
        Case("base64", b"aWQKMQo=", [CSV, "Content-Encoding: base64"], says="undone: base64"),
        Case("brotli", b"\x8b\x03\x80id\n1\n2\n\x03", [CSV, "Content-Encoding: br"], says="undone: br"),
    ],
    "empty segments are a result": [
        Case("line ends alone", b"\r\n\n", ask=table_of(), lands=is_empty_table),
        Case("a mark alone", b"\xff\xfe", ask=table_of("UTF-16LE"), lands=is_empty_table),
        Case("a header alone", b"id\n", ask=table_of(), lands=is_empty_table),
        Case("no byte below gzip", gzip.compress(b""), [CSV, GZIP], ask=table_of(), lands=is_empty_table),
        Case("no byte, and a coding", b"", [CSV, GZIP], ask=table_of(), lands=is_empty_table),
        Case("no byte, a coding, chunks", b"0\r\n\r\n", [GZIP, "Transfer-Encoding: chunked"], lands=b""),
        Case("no byte, a coding, no length", b"", [GZIP, "X-No-Framing: 1"], says=INTERRUPTED),
        Case("without a schema", b"", ask={"output.format": "parquet"}, says="set output.schema"),
        Case("as it is", b"", lands=b""),
        Case("to gzip", b"", ask={"output.compression": "gzip"}, lands=lambda data: gzip.decompress(data) == b""),
    ],
    "marks at the start are no data": [
        Case("two of UTF-16", "\ufeff\ufeffid\n".encode("utf-16-le"), ask=text_of("UTF-16LE"), lands=b"id\n"),
        Case("two and Parquet", b"\xef\xbb\xbf" * 2 + b"id\n", ask=table_of(), lands=is_empty_table),
        Case("three", b"\xef\xbb\xbf" * 3 + b"id\n", ask=text_of("utf8"), lands=b"id\n"),
        Case("nothing else", b"\xef\xbb\xbf" * 2, ask=text_of(), lands=b""),
        Case("one in a row", "id\n\ufeff\n".encode(), ask=text_of(), lands="id\n\ufeff\n".encode()),
        Case("as they are", b"\xef\xbb\xbf" * 2 + b"id\n", lands=b"\xef\xbb\xbf" * 2 + b"id\n"),
        Case("counting rows of gzip", PACKED, ask={"output.count_rows": True}, lands=PACKED, says_rows=None),
        Case(
            "counting rows",
            b"\xef\xbb\xbf" * 2 + b"\nid\n",
            ask={"output.count_rows": True},
            lands=b"\xef\xbb\xbf" * 2 + b"\nid\n",
            says_rows=1,
        ),
    ],
}


def kinds() -> dict[str, list[Case]]:
    """Returns all cases by kind."""
    found: dict[str, list[Case]] = defaultdict(list)
    for case in CASES:
        found[case["kind"]].append(given_case(case))
    for kind, cases in MORE.items():
        found[kind] += cases
    return found


@pytest.mark.parametrize("cases", kinds().values(), ids=kinds())
async def test_downloads_of_one_kind_land_whole_and_unchanged_or_fail(site: Site, cases: Sequence[Case]) -> None:
    assert await download_cases.run(site, cases) == []
