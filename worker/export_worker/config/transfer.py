"""The section `transfer`."""

from typing import Annotated

from pydantic import Field

from export_worker.config.section import Section


class TransferSettings(Section):
    """How bytes are moved.

    Args:
        memory_mib: Buffers of all transfers of one process together.
        parts_in_flight: Parts of one file that upload at once.
    """

    memory_mib: Annotated[int, Field(ge=16)] = 128
    parts_in_flight: Annotated[int, Field(ge=1, le=32)] = 4
