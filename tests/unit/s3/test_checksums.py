"""Checksums: values, combination, and the forms in which S3 writes them."""

import zlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_worker.s3.checksum_modes import checksums_in
from export_worker.s3.checksums import ALGORITHMS, CRC32, CRC32C, CRC64NVME, Algorithm, Checksum, content_md5

CHECK = b"123456789"


@pytest.mark.parametrize(
    ("algorithm", "value"), [(CRC64NVME, 0xAE8B14860A799888), (CRC32C, 0xE3069283), (CRC32, 0xCBF43926)]
)
def test_checksum_of_digits_is_the_value_of_the_crc_catalogue(algorithm: Algorithm, value: int) -> None:
    """The CRC RevEng catalogue has these values for the digits from 1 to 9."""
    assert Checksum.of(CHECK, algorithm).value == value


@given(first=st.binary(max_size=300), second=st.binary(max_size=300), algorithm=st.sampled_from(ALGORITHMS))
def test_checksums_of_two_pieces_combine_to_that_of_the_whole(
    first: bytes, second: bytes, algorithm: Algorithm
) -> None:
    whole = Checksum.of(first + second, algorithm)
    assert Checksum.of(first, algorithm).followed_by(Checksum.of(second, algorithm), len(second)) == whole
    assert Checksum.of(first, algorithm).over(second) == whole


@given(data=st.binary(max_size=100), algorithm=st.sampled_from(ALGORITHMS))
def test_wire_form_is_parsed_to_the_same_checksum(data: bytes, algorithm: Algorithm) -> None:
    checksum = Checksum.of(data, algorithm)
    assert Checksum.parse(algorithm, checksum.wire) == checksum
    assert str(checksum) == f"{algorithm.name}:{checksum.wire}"


def test_wire_form_is_big_endian_base64() -> None:
    assert Checksum.of(CHECK, CRC32).wire == b64encode(zlib.crc32(CHECK).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("wire", ["", "AAAA", "AAAAAA==-3", "no base64!", "AAAAAAAAAAA="])
def test_parse_returns_none_for_text_that_is_no_checksum(wire: str) -> None:
    assert Checksum.parse(CRC32, wire) is None


def test_composite_checksums_in_a_response_are_ignored() -> None:
    response = {"ChecksumCRC32": Checksum.of(CHECK, CRC32).wire, "ChecksumSHA256": "x"}
    assert checksums_in(response) == {CRC32: Checksum.of(CHECK, CRC32)}
    assert checksums_in(response | {"ChecksumType": "COMPOSITE"}) == {}


def test_content_md5_has_the_form_of_rfc_1864() -> None:
    assert content_md5(b"") == "1B2M2Y8AsgTpgAmY7PhCfg=="
