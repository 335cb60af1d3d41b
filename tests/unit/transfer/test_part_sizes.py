"""Sizes of parts for known and unknown lengths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_worker.transfer.part_sizes import (
    FIRST_PART_BYTES,
    MAX_OBJECT_BYTES,
    MAX_PART_BYTES,
    MAX_PARTS,
    MIB,
    MIN_PART_BYTES,
    PARTS_OF_ONE_SIZE,
    part_size,
)

GIB = 1024 * MIB


def parts_needed(total_bytes: int) -> int:
    return -(-total_bytes // part_size(1, total_bytes))


@given(st.integers(0, MAX_OBJECT_BYTES))
def test_every_known_length_fits_into_allowed_parts(total_bytes: int) -> None:
    size = part_size(1, total_bytes)
    assert MIN_PART_BYTES <= size <= MAX_PART_BYTES
    assert size % MIB == 0
    assert parts_needed(total_bytes) <= MAX_PARTS
    assert size == FIRST_PART_BYTES or (size - MIB) * MAX_PARTS < total_bytes, "not the smallest"


@given(st.integers(1, 700), st.integers(-1, 1))
def test_part_size_grows_exactly_at_limit_of_parts(size_mib: int, step: int) -> None:
    total_bytes = size_mib * MIB * MAX_PARTS + step
    if total_bytes > MAX_OBJECT_BYTES:
        return
    assert part_size(1, total_bytes) == max(8, size_mib + (step == 1)) * MIB


@given(st.integers(1, MAX_PARTS), st.integers(0, MAX_OBJECT_BYTES))
def test_all_parts_of_known_length_have_same_size(part_number: int, total_bytes: int) -> None:
    assert part_size(part_number, total_bytes) == part_size(1, total_bytes)


@pytest.mark.parametrize(
    ("total_bytes", "size_mib"),
    [
        (0, 8),
        (1, 8),
        (8 * MIB - 1, 8),
        (8 * MIB, 8),
        (8 * MIB + 1, 8),
        (80_000 * MIB, 8),
        (80_000 * MIB + 1, 9),
        (MAX_OBJECT_BYTES - 1, 525),
        (MAX_OBJECT_BYTES, 525),
    ],
)
def test_part_size_of_known_length(total_bytes: int, size_mib: int) -> None:
    assert part_size(1, total_bytes) == size_mib * MIB


@pytest.mark.parametrize(
    ("part_number", "size_mib"),
    [
        (1, 8),
        (999, 8),
        (1_000, 8),
        (1_001, 16),
        (2_000, 16),
        (2_001, 32),
        (9_000, 2_048),
        (9_001, 4_096),
        (10_000, 4_096),
    ],
)
def test_part_size_of_unknown_length(part_number: int, size_mib: int) -> None:
    assert part_size(part_number, None) == size_mib * MIB


def test_five_tib_of_unknown_length_fit_into_allowed_parts() -> None:
    sizes = [part_size(number, None) for number in range(1, MAX_PARTS + 1)]
    assert sum(sizes) >= MAX_OBJECT_BYTES
    assert sizes == sorted(sizes)
    assert max(sizes) <= MAX_PART_BYTES


def test_first_gib_of_unknown_length_has_small_parts() -> None:
    assert PARTS_OF_ONE_SIZE * FIRST_PART_BYTES >= GIB
    assert {part_size(number, None) for number in range(1, GIB // FIRST_PART_BYTES + 1)} == {FIRST_PART_BYTES}


@pytest.mark.parametrize("part_number", [-1, 0, MAX_PARTS + 1])
@pytest.mark.parametrize("total_bytes", [None, 1])
def test_part_number_that_s3_refuses_is_refused(part_number: int, total_bytes: int | None) -> None:
    with pytest.raises(ValueError, match="part number"):
        part_size(part_number, total_bytes)


@pytest.mark.parametrize("total_bytes", [-1, MAX_OBJECT_BYTES + 1])
def test_length_that_s3_refuses_is_refused(total_bytes: int) -> None:
    with pytest.raises(ValueError, match="an object of"):
        part_size(1, total_bytes)


@given(st.integers(1, MAX_PARTS), st.one_of(st.none(), st.integers(0, MAX_OBJECT_BYTES)), st.integers(5, 512))
def test_parts_of_one_size_fit_every_known_length(part_number: int, total_bytes: int | None, size_mib: int) -> None:
    size = part_size(part_number, total_bytes, size_mib * MIB)
    assert size == part_size(1, total_bytes, size_mib * MIB)
    assert size == size_mib * MIB or (total_bytes or 0) > size_mib * MIB * MAX_PARTS
    assert -(-(total_bytes or 0) // size) <= MAX_PARTS
