"""Files as Windows and others write them: byte order marks, UTF-16 and UTF-32."""

import pytest

from export_worker.contract.parsing import parse_request
from export_worker.errors import InvalidRequestError
from export_worker.texts.decoding import decode_text

TEXT = '{"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "t"}, "metadata": {"名": "值"}}'
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_request_is_read_in_every_encoding_that_windows_writes(encoding: str) -> None:
    assert parse_request(TEXT.encode(encoding)).metadata == {"名": "值"}


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_byte_order_mark_is_no_part_of_the_text(mark: str, encoding: str) -> None:
    if mark or not encoding.startswith("utf-32"):
        assert decode_text((mark + "a中").encode(encoding)) == "a中"


@pytest.mark.parametrize("text", ["", "a", "中", "\0"])
def test_utf8_text_stays_the_same(text: str) -> None:
    assert decode_text(text.encode()) == text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff{}", "is not text in UTF-8 (byte 1); save the file as UTF-8"),
        ("名".encode("gbk"), "is not text in UTF-8 (byte 1)"),
        (b"\xff\xfe{", "is not text in UTF-16 (byte 3)"),
    ],
)
def test_other_encodings_are_named(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match="save the file as UTF-8") as caught:
        decode_text(data)
    assert message in str(caught.value)


def test_request_in_another_encoding_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"request: is not JSON: it is not text in UTF-8 \(byte 2\)"):
        parse_request(b"{\xc3\x28}")
