"""The section `transfer`: the limits of transfers."""

from typing import Annotated

from pydantic import Field

from export_worker.config.section import Section


class TransferSettings(Section):
    """The limits of transfers in one worker process."""

    memory_mib: Annotated[int, Field(ge=16)] = 128
    """MiB of buffers that all transfers of one process share. Default 128, at least 16.

    A part that is as large as this, or larger, uses all of the memory. With the default, this concerns files of unknown
    length beyond 117 GiB, and files of known length beyond 1.2 TiB."""
    parts_in_flight: Annotated[int, Field(ge=1, le=32)] = 4
    """The number of parts of one file that are uploaded at once. Default 4, 1 to 32."""
    min_kib_per_s: Annotated[float, Field(ge=0, le=1024)] = 1.0
    """KiB a second that a source must send at least, averaged over two minutes. Default 1, 0 to 1024.

    A slower download is interrupted, and the step is retried. With 0 there is no minimum."""
    mib_per_second: Annotated[float, Field(gt=0)] | None = None
    """MiB a second that all transfers of one process may read. Above 0. Default: no limit."""
