"""The framing of chunked bodies: valid ones cut at every byte, and hostile ones."""

from random import Random

import pytest

from export_worker.platforms.http.chunked import LINE_MAX_BYTES, TRAILER_MAX_BYTES, ChunkedFraming, FramingError

BODY = Random(5).randbytes(300)
WHOLE = (
    b"1\r\n" + BODY[:1] + b"\r\n"
    b'0a;name=value;other="quoted"\r\n' + BODY[1:11] + b"\r\n"
    b"000000000000009 ; x\r\n" + BODY[11:20] + b"\r\n"
    b"118\r\n" + BODY[20:] + b"\r\n"
    b"0\r\nDigest: abc\r\nX-Other:\r\n\r\n"
)  # fmt: skip


def received(*pieces: bytes) -> tuple[bytes, bool]:
    """Returns the body, and whether it is complete."""
    framing, body = ChunkedFraming(), b""
    for piece in pieces:
        data = bytearray(piece)
        body += data[: framing.strip(memoryview(data))]
    return body, framing.is_complete


@pytest.mark.parametrize("step", [1, 2, 3, 7, len(WHOLE)])
def test_body_in_pieces_of_any_size_is_read_without_its_framing(step: int) -> None:
    assert received(*(WHOLE[at : at + step] for at in range(0, len(WHOLE), step))) == (BODY, True)


def test_body_cut_into_two_at_every_byte_is_the_same() -> None:
    for at in range(len(WHOLE) + 1):
        assert received(WHOLE[:at], WHOLE[at:]) == (BODY, True)


def test_body_is_complete_only_with_its_last_byte() -> None:
    for end in range(len(WHOLE)):
        body, is_complete = received(WHOLE[:end])
        assert BODY.startswith(body)
        assert not is_complete


def test_bytes_behind_the_end_are_ignored() -> None:
    assert received(WHOLE + b"HTTP/1.1 200 OK\r\n\r\n5\r\n12345", b"more") == (BODY, True)


def test_empty_body_is_complete() -> None:
    assert received(b"0\r\n\r\n") == (b"", True)


def test_size_of_any_number_takes_no_memory() -> None:
    framing = ChunkedFraming()
    assert framing.strip(memoryview(bytearray(b"FFFFFFFFFFFFFFFF\r\nabc"))) == 3
    assert framing.left_bytes == 2**64 - 1 - 3


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x5\r\n12345\r\n",
        b"1_0\r\n",
        b" 5\r\n",
        b"5\n12345\n",
        b"5 5\r\n",
        b"10000000000000000\r\n",
        b"5\r\n123456\r\n",
        b"5\r\n12345\n",
        b"5\r\n1234512345",
        b"3\r\nabc\r\n\r\n0\r\n\r\n",
        b"0\r\nno field\r\n\r\n",
        b"0\r\n: no name\r\n\r\n",
        b"0\r\n folded\r\n\r\n",
        b"5;" + b"x" * LINE_MAX_BYTES,
        b"0\r\n" + b"name: value\r\n" * (TRAILER_MAX_BYTES // 12),
    ],
)
@pytest.mark.parametrize("step", [1, 20_000])
def test_bytes_that_are_no_chunked_body_are_refused(sent: bytes, step: int) -> None:
    sent += b"\r\n" * 3000
    with pytest.raises(FramingError) as raised:
        received(*(sent[at : at + step] for at in range(0, len(sent), step)))
    assert "12345" not in str(raised.value)
