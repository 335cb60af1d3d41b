"""Random bytes for bodies of several parts. A process makes them once, because that takes longer than most tests."""

from random import Random

from export_worker.transfer.part_sizes import FIRST_PART_BYTES

_NOISE = Random(17).randbytes(3 * FIRST_PART_BYTES + 12_345)


def noise(parts: int, rest: int = 0) -> bytes:
    """Returns a body of full parts of the first size and a rest, which no compression makes shorter."""
    return _NOISE[: parts * FIRST_PART_BYTES + rest]
