"""What queues have in common as async context managers."""

from types import TracebackType
from typing import Self


class Closing:
    """Closes itself at the end of an `async with` block."""

    async def close(self) -> None:
        """Closes the connections."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
