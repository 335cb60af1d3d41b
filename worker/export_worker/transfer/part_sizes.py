"""How large each part of a multipart upload is. Pure; the limits are those of S3's own documents.

With a known length the parts are as small as 10,000 of them allow. With an unknown one they begin at 8 MiB and double
after every 1,000 parts, so that small files cost little memory and 5 TiB still fit.
"""

MIB = 1024 * 1024

MIN_PART_BYTES = 5 * MIB
"""S3 refuses a smaller part, unless it is the last one."""
MAX_PART_BYTES = 5 * 1024 * MIB
"""S3 refuses a larger part."""
MAX_PARTS = 10_000
"""S3 refuses a higher part number."""
MAX_OBJECT_BYTES = 5 * 1024 * 1024 * MIB
"""5 TiB: what every S3-speaking store is built for. Some take more; no export comes near it."""
FIRST_PART_BYTES = 8 * MIB
"""Large enough that the calls cost little beside the bytes, small enough to hold several at once."""
PARTS_OF_ONE_SIZE = 1_000
"""The first 7.8 GiB of unknown length go in parts of 8 MiB; ten doublings of 1,000 parts hold 7.8 TiB."""


def part_size(part_number: int, total_bytes: int | None) -> int:
    """Bytes of one part, the last one aside, which has what is left.

    Args:
        part_number: 1 to 10,000, as S3 counts.
        total_bytes: Length of the whole object; None when it is not known.

    Raises:
        ValueError: No such part, or the object is larger than 5 TiB.
    """
    if not 1 <= part_number <= MAX_PARTS:
        raise ValueError(f"part number {part_number} is not in 1 to {MAX_PARTS}")
    if total_bytes is None:
        doublings = (part_number - 1) // PARTS_OF_ONE_SIZE
        return FIRST_PART_BYTES << doublings
    if not 0 <= total_bytes <= MAX_OBJECT_BYTES:
        raise ValueError(f"an object of {total_bytes} bytes is not in 0 to {MAX_OBJECT_BYTES}")
    smallest = -(-total_bytes // MAX_PARTS)
    whole_mib = -(-smallest // MIB) * MIB
    return max(FIRST_PART_BYTES, whole_mib)
