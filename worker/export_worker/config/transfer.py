"""The section `transfer`."""

from typing import Annotated

from pydantic import Field

from export_worker.config.section import Section


class TransferSettings(Section):
    """How bytes are moved.

    Args:
        memory_mib: Buffers of all transfers of one process together. A single part that is larger (of a file beyond
            120 GiB whose length is not known, or beyond 1.2 TiB, with the default) takes all of it while it fills.
        parts_in_flight: Parts of one file that upload at once.
        mib_per_second: That all transfers of one process may read; without it there is no ceiling.
    """

    memory_mib: Annotated[int, Field(ge=16)] = 128
    parts_in_flight: Annotated[int, Field(ge=1, le=32)] = 4
    mib_per_second: Annotated[float, Field(gt=0)] | None = None
