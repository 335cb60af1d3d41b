"""How far the transfer of one export is. Counting is an addition; what is told is worked out when somebody asks."""

import time
from collections import deque
from collections.abc import Callable

from export_worker.contract.status import Progress

READINGS = 6
"""The rate is that of the last so many readings: with one a second, it has forgotten a pause after five seconds."""


class TransferProgress:
    """Counts what comes and what is stored.

    Args:
        files_total: Of the export.
        files_done: Of an earlier attempt.
        bytes_done: The source bytes of those.
        clock: Seconds that never go back.
    """

    def __init__(
        self, files_total: int, files_done: int, bytes_done: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._files_total = files_total
        self._files_done = files_done
        self._bytes_before = bytes_done
        self._parts_done = 0
        self._file_bytes: int | None = None
        self._file_done_bytes = 0
        self._moved_bytes = 0
        self._clock = clock
        self._readings = deque([(clock(), 0)], maxlen=READINGS)

    def begin(self, file_bytes: int | None, kept_bytes: int = 0, kept_parts: int = 0) -> None:
        """The next file begins.

        Args:
            file_bytes: Of its source, where that is known.
            kept_bytes: Of them, those that an earlier attempt has stored already.
            kept_parts: The parts that they are in.
        """
        self._file_bytes = file_bytes
        self._file_done_bytes = kept_bytes
        self._parts_done += kept_parts

    def came(self, more_bytes: int) -> None:
        """So many bytes of the source have come."""
        self._file_done_bytes += more_bytes
        self._moved_bytes += more_bytes

    def part_stored(self) -> None:
        """S3 has taken a part, or a file that is a single one."""
        self._parts_done += 1

    def file_stored(self, source_bytes: int) -> None:
        """A file stands in S3, however much of it came in this attempt."""
        self._files_done += 1
        self._bytes_before += source_bytes
        self._file_done_bytes = 0

    def read(self) -> Progress:
        """How far it is now. To be called at even intervals: the rate is one between readings."""
        total = self._file_bytes if self._files_total == 1 else None
        done = self._bytes_before + self._file_done_bytes
        return Progress(
            percent=round(100.0 * done / total, 1) if total else None,
            bytes_done=done,
            bytes_total=total,
            files_done=self._files_done,
            files_total=self._files_total,
            parts_done=self._parts_done,
            bytes_per_s=self._rate(),
        )

    def _rate(self) -> int:
        now_s, (then_s, then_bytes) = self._clock(), self._readings[0]
        self._readings.append((now_s, self._moved_bytes))
        return round((self._moved_bytes - then_bytes) / max(now_s - then_s, 1e-3))
