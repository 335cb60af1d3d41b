"""A value that is built from files, and is built again when one of them has changed."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from export_worker.errors import ConfigError

CHECK_S = 10.0
"""Seconds between two looks at the files. A renewed certificate is needed within hours, not within seconds."""

_log = structlog.get_logger(__name__)

T = TypeVar("T")
Stamp = tuple[int, int, int] | None


class WatchedFiles(Generic[T]):
    """A value that is built from files.

    Args:
        build: Builds the value; raises ConfigError if a file cannot be used. It runs in a thread, after the first time.
        files: The files.
        check_s: Seconds between two looks at the files.

    Raises:
        ConfigError: A file cannot be used.
    """

    def __init__(self, build: Callable[[], T], files: Sequence[Path], check_s: float = CHECK_S) -> None:
        self._build = build
        self._files = files
        self._check_s = check_s
        self._stamps: list[Stamp] | None = self._read_stamps()
        self._problem = ""
        self._value = build()
        self._checked_s = time.monotonic()

    async def value(self) -> T:
        """Returns the value. If a changed file cannot be used, this is the previous value."""
        now_s = time.monotonic()
        if self._files and now_s - self._checked_s >= self._check_s:
            self._checked_s = now_s
            await asyncio.to_thread(self._refresh)
        return self._value

    @property
    def last(self) -> T:
        """The value, without a look at the files."""
        return self._value

    def _refresh(self) -> None:
        # Read first: a file that changes while it is read is read again at the next look.
        stamps = self._read_stamps()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self._value = self._build()
        except ConfigError as error:
            # Tried again at the next look: the cause may be rights of a file, or a secret that is not in these files.
            self._stamps = None
            if str(error) != self._problem:
                self._problem = str(error)
                _log.warning("network.files_not_used", problem=self._problem, effect="the previous ones are still used")
        else:
            self._problem = ""
            _log.info("network.files_read_again", files=[str(file) for file in self._files])

    def _read_stamps(self) -> list[Stamp]:
        return [_stamp(file) for file in self._files]


def _stamp(file: Path) -> Stamp:
    try:
        found = file.stat()
    except (OSError, ValueError):  # ValueError: it is no path; `build` reports both
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
