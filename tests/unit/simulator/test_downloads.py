"""How a download is split at the offset of a fault."""

from hypothesis import given
from hypothesis import strategies as st

from export_worker.simulator.downloads import split_at


@given(pieces=st.lists(st.binary(min_size=1, max_size=9)), offset=st.integers(0, 60) | st.none())
def test_split_at_keeps_bytes_and_ends_a_piece_at_the_offset(pieces: list[bytes], offset: int | None) -> None:
    parts = list(split_at(pieces, offset))
    whole = b"".join(pieces)
    assert b"".join(parts) == whole
    if offset is not None and offset <= len(whole):
        ends = [0]
        for part in parts:
            ends.append(ends[-1] + len(part))
        assert offset in ends
