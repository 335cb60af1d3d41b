"""Writes log lines from a separate thread, so that a reader that stops reading cannot stop the process.

A write to a full pipe blocks until its reader reads. On the event loop, such a write would stop every export and
the renewal of every lease.
"""

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

BUFFER_BYTES = 1024 * 1024
"""Lines that wait for the reader. A worker writes this much in about ten minutes."""
PAUSE_S = 0.02
"""After each write. Lines of this time are written together: to wake the thread for each line costs more than the line.
A process that is killed loses the lines of its last pause."""
FLUSH_S = 1.0
"""Time for the last lines when the process ends. A reader that does not read must not delay the end for longer."""


class LineWriter(logging.Handler):
    """A log handler that formats a line at once and leaves its writing to a thread.

    Lines that do not fit into the buffer are dropped and counted. When the reader reads again, one line reports their
    number.

    Args:
        stream: Receives the lines. A stream with a file descriptor is written without its buffer and its lock: Python
            locks them when the process ends, and would wait for a blocked write there.
        dropped_line: Returns the line that reports a number of dropped lines.
        buffer_bytes: Limit of the lines that wait.
    """

    def __init__(self, stream: TextIO, dropped_line: Callable[[int], str], *, buffer_bytes: int = BUFFER_BYTES) -> None:
        super().__init__()
        self._write = _writer(stream)
        self._dropped_line = dropped_line
        self._buffer_bytes = buffer_bytes
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._unreported = 0
        self._writing = self._waiting = self._closed = False
        self._flushing = 0
        self._changed = threading.Condition()
        self.dropped = 0
        """Lines that were dropped since the start."""
        threading.Thread(target=self._run, name="log-writer", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Formats a line, here and now, with the context of the caller, and hands it to the thread."""
        try:
            self.put(self.format(record))
        except Exception:  # noqa: BLE001 - what logging does: an error in a log call must not end the caller
            self.handleError(record)

    def put(self, text: str) -> None:
        """Hands a finished line to the thread, or drops it if the buffer is full."""
        line = (text + "\n").encode(errors="backslashreplace")
        with self._changed:
            if self._waiting_bytes + len(line) > self._buffer_bytes:
                self.dropped += 1
                self._unreported += 1
                return
            self._lines.append(line)
            self._waiting_bytes += len(line)
            if self._waiting:
                self._changed.notify_all()

    def flush(self) -> None:
        """Waits until every line is written, but at most `FLUSH_S`. `logging` calls it when the process ends."""
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            self._changed.wait_for(self._is_idle, FLUSH_S)
            self._flushing -= 1

    def close(self) -> None:
        """Writes what waits, as `flush` does, and ends the thread."""
        self.flush()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        super().close()

    def _is_idle(self) -> bool:
        return not (self._lines or self._unreported or self._writing)

    def _run(self) -> None:
        while (lines := self._next()) is not None:
            self._write(lines)

    def _next(self) -> bytes | None:
        """Waits for lines and returns them, or None when the handler is closed."""
        with self._changed:
            self._writing = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._flushing or self._closed, PAUSE_S)
            self._waiting = True
            self._changed.wait_for(lambda: self._lines or self._unreported or self._closed)
            self._waiting = False
            lines = self._oldest()
            self._writing = lines is not None
            return lines

    def _oldest(self) -> bytes | None:
        """Returns all lines that wait, or after the last one the report of the lines that were dropped."""
        if self._lines:
            lines = b"".join(self._lines)
            self._lines.clear()
            self._waiting_bytes = 0
            return lines
        if not self._unreported:
            return None
        dropped, self._unreported = self._unreported, 0
        return (self._dropped_line(dropped) + "\n").encode()


def _writer(stream: TextIO) -> Callable[[bytes], None]:
    try:
        descriptor = stream.fileno()
    except OSError:  # a stream in memory has no file descriptor
        return lambda line: _write_to_stream(stream, line)
    return lambda line: _write_to_descriptor(descriptor, line)


def _write_to_stream(stream: TextIO, line: bytes) -> None:
    stream.write(line.decode())


def _write_to_descriptor(descriptor: int, line: bytes) -> None:
    left = memoryview(line)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # another process has made the shared pipe non-blocking
            select.select([], [descriptor], [])
        except OSError:  # the reader is gone: the line is lost, and the next one may have a reader again
            time.sleep(0.01)
            return
