"""Which bodies are files, and which are error pages or incomplete."""

import re
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_worker.credentials import MASK, Redactor
from export_worker.errors import DownloadInterruptedError, DownloadInvalidError
from export_worker.s3.checksums import Checksum
from export_worker.transfer.error_pages import SNIFF_BYTES, ErrorPages
from export_worker.transfer.source import ValidatedSource


class Body:
    """A download from memory."""

    content_type = "text/csv"

    def __init__(self, pieces: Sequence[bytes], total_bytes: int | None = None) -> None:
        self.pieces = pieces
        self.total_bytes = total_bytes
        self.closed = False
        self.given = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            for piece in self.pieces:
                self.given += 1
                yield piece
        finally:
            self.closed = True


SECRET = "canary-S3cret"


def pages(file_name: str) -> ErrorPages:
    redactor = Redactor()
    redactor.add(SECRET)
    return ErrorPages(file_name, redactor)


async def read(pieces: Sequence[bytes], total_bytes: int | None = None, file_name: str = "a.csv") -> bytes:
    source = ValidatedSource(Body(pieces, total_bytes), pages(file_name), lambda _: None)
    return b"".join([chunk async for chunk in source.chunks()])


@given(st.lists(st.binary(max_size=50)), st.booleans())
async def test_valid_body_is_unchanged(pieces: list[bytes], known: bool) -> None:
    body = b"".join(pieces)
    if b"{" in body or b"<" in body:
        return  # it may be a page or a message
    seen: list[int] = []
    source = ValidatedSource(Body(pieces, len(body) if known else None), pages("users"), seen.append)
    assert b"".join([chunk async for chunk in source.chunks()]) == body
    assert sum(seen) == source.bytes_read == len(body)
    assert source.checksum == Checksum.of(body)


@pytest.mark.parametrize("over", [-1, 0, 1, SNIFF_BYTES])
async def test_body_around_sniffed_size_is_unchanged(over: int) -> None:
    body = bytes(range(1, 251)) * 600
    body = body[: SNIFF_BYTES + over]
    assert await read([body[:100], body[100:-1], body[-1:]], len(body)) == body


PAGES = [
    "<!DOCTYPE html><html>gone</html>",
    "<!doctype HTML>",
    "<html lang='zh'>登录</html>",
    "\r\n\t <HTML><head>",
]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("padding", [0, 3 * SNIFF_BYTES])
async def test_html_page_is_refused(page: str, encoding: str, padding: int) -> None:
    body = (page + " " * padding).encode(encoding)
    pieces = [body[start : start + 40_000] for start in range(0, len(body), 40_000)]
    with pytest.raises(DownloadInvalidError, match=r"(?i)HTML page, not a file: <(!doctype|html)"):
        await read(pieces, len(body))


async def test_refused_page_ends_reading_before_any_chunk() -> None:
    body = Body([b"<html>", *[b" " * SNIFF_BYTES] * 10])
    source = ValidatedSource(body, pages("a.csv"), lambda _: None)
    yielded = []
    with pytest.raises(DownloadInvalidError):
        yielded += [chunk async for chunk in source.chunks()]
    assert yielded == []
    assert body.given == 2
    assert body.closed


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
async def test_json_object_is_refused(encoding: str) -> None:
    with pytest.raises(DownloadInvalidError, match=r'JSON message, not a file: \{"error": "登录 expired"\}'):
        await read(['\n{"error":\x00\n"登录\texpired"}'.replace("\x00", "").replace("\t", " ").encode(encoding)])


@pytest.mark.parametrize(
    ("page", "what"),
    [
        ('<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML document"),
        ("<Error><Code>NoSuchKey</Code></Error>", "a page of markup"),
        ("<!-- proxy --><p>gone", "a page of markup"),
        ("<script>location='/login'</script>", "a page of markup"),
        ("<h1>502</h1>", "a page of markup"),
        ('<soap:Envelope xmlns:soap="x">', "a page of markup"),
        ("</body>", "a page of markup"),
    ],
)
@pytest.mark.parametrize("padding", [0, 3 * SNIFF_BYTES])
@pytest.mark.parametrize("file_name", ["a.csv", "a.json", "users"])
async def test_markup_is_refused_under_every_other_name(page: str, what: str, padding: int, file_name: str) -> None:
    body = f"\n {page}".encode() + b" " * padding
    with pytest.raises(DownloadInvalidError, match=f"the download is {what}, not a file: <"):
        await read([body], len(body), file_name)


@pytest.mark.parametrize("file_name", ["a.xml", "a.HTML"])
async def test_markup_is_accepted_under_its_name(file_name: str) -> None:
    assert await read([b"<a/>"], 4, file_name) == b"<a/>"


@pytest.mark.parametrize("text", ["<18,>=18\n1,2\n", "< a,b\n", "<3\n", "id\n<html>\n"])
async def test_table_that_begins_with_another_less_than_sign_is_accepted(text: str) -> None:
    assert await read([text.encode()]) == text.encode()


@pytest.mark.parametrize("text", ['[{"code": 401}]', "[]", '["a", "b"]', '[\n {"error": "x"}\n]'])
async def test_json_array_is_refused_under_the_name_of_a_table_and_not_quoted(text: str) -> None:
    with pytest.raises(DownloadInvalidError, match=r"the download is a JSON array where a table was announced$"):
        await read([text.encode()])
    for other_name in ("a.json", "users"):
        assert await read([text.encode()], file_name=other_name) == text.encode()


@pytest.mark.parametrize(
    "text",
    [
        '[{"id": 1}, ',
        '[["id", 1], ',
        '{"rows": [',
        '{\n  "code": 500, ',
        "{'code': 500, ",
        "{code: 500, ",
        '{"id": 1}\n{"id": 2}\n',
        """)]}',\n{"code": 500}""",
        'callback({"code": 500});',
        'for(;;);{"code": 500}',
        'data: {"code": 500}\n\n',
        '// {"code": 500}\n',
        "HTTP/1.1 404 Not Found\r\n\r\n",
        "--b\r\nContent-Type: text/csv\r\n\r\nid\n1\n--b--\r\n",
    ],
)
@pytest.mark.parametrize("padding", [0, SNIFF_BYTES])
@pytest.mark.parametrize("file_name", ["a.csv", "a.tsv", "a.csv.gz"])
async def test_beginning_of_json_is_refused_under_the_name_of_a_table_and_not_quoted(
    text: str, padding: int, file_name: str
) -> None:
    body = text.encode() + b"1, " * padding
    with pytest.raises(DownloadInvalidError, match=r"begins like JSON where a table was announced$"):
        await read([body], file_name=file_name)
    assert await read([body], file_name="users") == body


async def test_json_object_without_an_error_is_not_quoted() -> None:
    with pytest.raises(DownloadInvalidError, match=r"the download is a JSON message, not a file$"):
        await read([b'{"id": 1, "phone": "13800000000"}'])


SIGNED = b"7;chunk-signature=" + b"a" * 64 + b"\r\nid\n1\n2\n\r\n0;chunk-signature=" + b"b" * 64 + b"\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"7\r\nid\n1\n2\n\r\n0\r\n\r\n",
        b"7\r\nid\n1\n2\n\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
        SIGNED,
        b"10000;chunk-signature=" + b"a" * 64 + b"\r\n" + b"1\n" * SNIFF_BYTES,
        b"".join([b"4000\r\n" + b"1\n" * 0x2000 + b"\r\n"] * 20),
    ],
    ids=["chunks", "trailer", "signed", "long and signed", "long"],
)
async def test_framing_of_chunks_in_the_data_is_refused(body: bytes) -> None:
    for name in ("a.csv", "a.csv.gz", "a.json"):
        with pytest.raises(DownloadInvalidError, match="still has the framing of its chunks"):
            await read([body], file_name=name)


@pytest.mark.parametrize(
    "text",
    [
        "1\r\n5\r\n1\r\n7\r\n",
        "a\r\n1\r\n",
        "0\r\n",
        "0\r\n\r\n",
        "3\r\nabc\r\n",
        "1\r\n1\r\n" * 40_000,
        "100000\r\n" * 20_000,
    ],
    ids=range(7),
)
async def test_rows_that_look_like_the_sizes_of_chunks_are_accepted(text: str) -> None:
    assert await read([text.encode()]) == text.encode()


async def test_table_that_begins_with_blanks_only_is_refused() -> None:
    with pytest.raises(DownloadInvalidError, match="begins with 64 KiB of blanks"):
        await read([b"\n" * 70_000 + b"<html>"])


@pytest.mark.parametrize("text", ["{a},b\n1,2\n", "[a],b\n", '"{""a"": 1}",b\n', "[1,2\n", "{,\n"])
async def test_table_that_begins_with_a_bracket_is_accepted(text: str) -> None:
    assert await read([text.encode()]) == text.encode()


async def test_secret_at_the_border_of_an_excerpt_is_masked() -> None:
    for before in range(240, 310):
        with pytest.raises(DownloadInvalidError) as caught:
            await read([b"<p>" + b"x" * before + SECRET.encode() + b"</p>"])
        assert "canary" not in str(caught.value)
    with pytest.raises(DownloadInvalidError, match=re.escape(f"<p>{MASK}</p>")):
        await read([f"<p>{SECRET}</p>".encode()])


async def test_excerpt_in_error_is_short_and_printable() -> None:
    with pytest.raises(DownloadInvalidError) as caught:
        await read([b'{"a":\r\n"' + b"x" * 5000 + b'"}'])
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize(
    "body",
    [
        b"[1, 2",
        b"{not json",
        b'"text"',
        b"<1>",
        b"a,<html>",
        b"",
    ],
    ids=lambda body: f"{body[:12]!r}-{len(body)}",
)
async def test_body_similar_to_error_message_is_accepted(body: bytes) -> None:
    assert await read([body]) == body


@pytest.mark.parametrize(
    "body",
    [b'{"a":' * 30_000 + b"1" + b"}" * 30_000, b'{"a": "' + b"x" * SNIFF_BYTES + b'"}', b'{"a":1}\n{"a":2}\n'],
    ids=["deep", "long", "lines"],
)
async def test_json_that_is_no_short_object_is_accepted_without_an_extension(body: bytes) -> None:
    assert await read([body], file_name="users") == body


@pytest.mark.parametrize("total_bytes", [1, 10, 200_000, 200_001])
@pytest.mark.parametrize("difference", [-1, 1])
async def test_body_of_other_length_than_announced_is_refused(total_bytes: int, difference: int) -> None:
    body = b"x" * (total_bytes + difference)
    pieces = [body[start : start + 30_000] for start in range(0, len(body), 30_000)]
    with pytest.raises(DownloadInterruptedError, match=f"{total_bytes} bytes that were announced"):
        await read(pieces, total_bytes)


async def test_body_longer_than_announced_empty_one_is_refused() -> None:
    with pytest.raises(DownloadInterruptedError, match="longer than the 0 bytes"):
        await read([b"x"], 0)
    assert await read([], 0) == b""
