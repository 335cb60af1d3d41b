"""A terminal of a chosen size, for commands that behave otherwise in one."""

import fcntl
import os
import pty
import struct
import termios
from threading import Thread
from types import TracebackType
from typing import Self


class Terminal:
    """A pseudoterminal whose output is read until its end.

    Args:
        columns: The width.
        lines: The height.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self._master, self.stream = pty.openpty()
        fcntl.ioctl(self.stream, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._output = bytearray()
        self._reader = Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.stream)
        self._reader.join(timeout=10)
        os.close(self._master)

    @property
    def text(self) -> str:
        """The output so far, with its control sequences."""
        return self._output.decode(errors="replace")

    def type(self, keys: bytes) -> None:
        """Sends keys. Ctrl-C, `\\x03`, interrupts the processes whose controlling terminal this is."""
        os.write(self._master, keys)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65_536)
            except OSError:  # Linux: no process has the terminal open any more
                return
            if not data:
                return
            self._output += data
