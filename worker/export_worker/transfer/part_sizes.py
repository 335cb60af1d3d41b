"""Sizes of the parts of a multipart upload. Pure. The limits are those of S3's documentation.

If the length is known, the parts are as small as 10,000 of them allow. If it is unknown, they start at 8 MiB and double
after every 1,000 parts, so that small files need little memory and 5 TiB still fit. A store may require one size for
all parts of an upload.
"""

MIB = 1024 * 1024

MIN_PART_BYTES = 5 * MIB
"""S3 refuses a smaller part, unless it is the last one."""
MAX_PART_BYTES = 5 * 1024 * MIB
"""S3 refuses a larger part."""
MAX_PARTS = 10_000
"""S3 refuses a higher part number."""
MAX_OBJECT_BYTES = 5 * 1024 * 1024 * MIB
"""5 TiB, which every S3-compatible store accepts. Some accept more, but exports are far smaller."""
FIRST_PART_BYTES = 8 * MIB
"""Large enough that the calls cost little compared with the bytes, small enough to hold several parts in memory."""
RESUMED_PARTS_MIN = 2
"""A single part saves too little to justify a ranged request, which the source may not support."""
PARTS_OF_ONE_SIZE = 1_000
"""The first 7.8 GiB of unknown length are sent in parts of 8 MiB. Ten doublings of 1,000 parts hold 7.8 TiB."""


def part_size(part_number: int, total_bytes: int | None, fixed_bytes: int | None = None) -> int:
    """Returns the bytes of one part. The last part is shorter: it has what remains.

    Args:
        part_number: 1 to 10,000, as S3 counts.
        total_bytes: Length of the whole object; None if unknown.
        fixed_bytes: The size of all parts. They are larger only if 10,000 of them are smaller than the object.

    Raises:
        ValueError: The number is out of range, or the object is larger than 5 TiB.
    """
    if not 1 <= part_number <= MAX_PARTS:
        raise ValueError(f"part number {part_number} is not in 1 to {MAX_PARTS}")
    if total_bytes is None and fixed_bytes is not None:
        return fixed_bytes
    if total_bytes is None:
        doublings = (part_number - 1) // PARTS_OF_ONE_SIZE
        return FIRST_PART_BYTES << doublings
    if not 0 <= total_bytes <= MAX_OBJECT_BYTES:
        raise ValueError(f"an object of {total_bytes} bytes is not in 0 to {MAX_OBJECT_BYTES}")
    smallest = -(-total_bytes // MAX_PARTS)
    whole_mib = -(-smallest // MIB) * MIB
    return max(fixed_bytes or FIRST_PART_BYTES, whole_mib)
