"""What a terminal showed: its output over time, played on an emulated screen."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyte

_CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


@dataclass(frozen=True, slots=True)
class Screen:
    """What the terminal shows at one moment.

    Args:
        seconds: Time since the start of the command.
        text: The lines of the screen.
    """

    seconds: float
    text: str


@dataclass(slots=True)
class Recording:
    """The output of a command in a terminal, as it came.

    Args:
        columns: Width of the terminal.
        lines: Height of the terminal.
        parts: Seconds since the start of the command, and the output since the part before.
        seconds: The time of the last output.
    """

    columns: int
    lines: int
    parts: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0
    _length: int = 0

    def add(self, seconds: float, output: str) -> None:
        """Records what was printed since the last call.

        Args:
            seconds: Time since the start of the command.
            output: The whole output, from the start of the command.
        """
        complete = output.rstrip("\ufffd")  # a character whose bytes have not all come
        if len(complete) > self._length:
            self.parts.append((seconds, complete[self._length :]))
            self._length = len(complete)
            self.seconds = seconds

    @property
    def text(self) -> str:
        """All output without control sequences, as it is copied from a terminal."""
        return _CONTROL_SEQUENCE.sub("", "".join(part for _, part in self.parts))

    def seconds_of(self, text: str) -> float | None:
        """Returns when the output first contained a text."""
        printed = ""
        for seconds, part in self.parts:
            printed += part
            if text in printed:
                return seconds
        return None

    def screens(self) -> Iterator[Screen]:
        """Yields each screen that differs from the one before."""
        emulated = pyte.Screen(self.columns, self.lines)
        stream = pyte.Stream(emulated)
        shown = ""
        for seconds, part in self.parts:
            stream.feed(part)
            text = "\n".join(line.rstrip() for line in emulated.display).rstrip()
            if text != shown:
                shown = text
                yield Screen(seconds, text)
