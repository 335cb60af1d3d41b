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
def test_the_check_values_of_the_catalogue(algorithm: Algorithm, value: int) -> None:
    """As the CRC RevEng catalogue has them for the digits from 1 to 9."""
    assert Checksum.of(CHECK, algorithm).value == value


@given(first=st.binary(max_size=300), second=st.binary(max_size=300), algorithm=st.sampled_from(ALGORITHMS))
def test_pieces_make_the_whole(first: bytes, second: bytes, algorithm: Algorithm) -> None:
    whole = Checksum.of(first + second, algorithm)
    assert Checksum.of(first, algorithm).followed_by(Checksum.of(second, algorithm), len(second)) == whole
    assert Checksum.of(first, algorithm).over(second) == whole


@given(data=st.binary(max_size=100), algorithm=st.sampled_from(ALGORITHMS))
def test_a_wire_form_is_read_back(data: bytes, algorithm: Algorithm) -> None:
    checksum = Checksum.of(data, algorithm)
    assert Checksum.parse(algorithm, checksum.wire) == checksum
    assert str(checksum) == f"{algorithm.name}:{checksum.wire}"


def test_the_wire_form_is_big_endian() -> None:
    assert Checksum.of(CHECK, CRC32).wire == b64encode(zlib.crc32(CHECK).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("wire", ["", "AAAA", "AAAAAA==-3", "no base64!", "AAAAAAAAAAA="])
def test_what_is_no_wire_form_tells_nothing(wire: str) -> None:
    assert Checksum.parse(CRC32, wire) is None


def test_a_checksum_of_checksums_tells_nothing_of_the_object() -> None:
    told = {"ChecksumCRC32": Checksum.of(CHECK, CRC32).wire, "ChecksumSHA256": "x"}
    assert checksums_in(told) == {CRC32: Checksum.of(CHECK, CRC32)}
    assert checksums_in(told | {"ChecksumType": "COMPOSITE"}) == {}


def test_md5_is_that_of_rfc_1864() -> None:
    assert content_md5(b"") == "1B2M2Y8AsgTpgAmY7PhCfg=="
