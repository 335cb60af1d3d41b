"""The thread that writes log lines: a reader that does not read blocks no caller, and lost lines are reported."""

import fcntl
import io
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from export_worker.telemetry.line_writer import LineWriter

TEXT = "x" * 99
"""A line of 100 bytes."""
BUFFER_BYTES = 1000
PIPE_BYTES = 4096


class Pipe:
    """A pipe with a small buffer and a log handler that writes into it."""

    def __init__(self, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.reader, self._writer = os.pipe()
        fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.stream = os.fdopen(self._writer, "w")
        self.handler = LineWriter(self.stream, lambda dropped: f"dropped {dropped}", buffer_bytes=buffer_bytes)

    def log(self, count: int) -> None:
        for _ in range(count):
            self.handler.emit(logging.makeLogRecord({"msg": TEXT}))

    def read(self, lines: int) -> list[str]:
        with os.fdopen(os.dup(self.reader)) as reader:
            return [reader.readline().rstrip("\n") for _ in range(lines)]


@pytest.fixture
def pipe(request: pytest.FixtureRequest) -> Iterator[Pipe]:
    pipe = Pipe(getattr(request, "param", BUFFER_BYTES))
    yield pipe
    with suppress(OSError):
        os.close(pipe.reader)
    pipe.handler.close()
    pipe.stream.close()


@pytest.mark.timeout(20)
def test_caller_is_not_blocked_and_dropped_lines_are_counted_and_reported_when_the_reader_reads_again(
    pipe: Pipe,
) -> None:
    pipe.log(200)  # 20,000 bytes: a pipe of 4,096 bytes, and a buffer of 1,000 bytes
    assert 140 <= pipe.handler.dropped <= 195  # the thread empties the buffer once, or never, meanwhile
    kept = 200 - pipe.handler.dropped
    lines = pipe.read(kept + 1)
    assert lines == [TEXT] * kept + [f"dropped {pipe.handler.dropped}"]
    pipe.log(1)
    assert pipe.read(1) == [TEXT]


@pytest.mark.timeout(20)
def test_flush_of_a_pipe_that_is_not_read_returns(pipe: Pipe) -> None:
    pipe.log(200)
    pipe.handler.flush()
    assert pipe.handler.dropped


@pytest.mark.timeout(20)
def test_lines_after_the_reader_has_closed_the_pipe_are_lost_without_an_error(pipe: Pipe) -> None:
    os.close(pipe.reader)
    pipe.log(5)
    pipe.handler.flush()
    assert pipe.handler.dropped == 0


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pipe", [100 * PIPE_BYTES], indirect=True)
def test_pipe_that_another_process_made_non_blocking_loses_no_line(pipe: Pipe) -> None:
    os.set_blocking(pipe.stream.fileno(), False)
    lines = 10 * PIPE_BYTES // (len(TEXT) + 1)
    pipe.log(lines)
    assert pipe.read(lines) == [TEXT] * lines


def test_closed_handler_has_written_every_line_and_ends_its_thread() -> None:
    stream = io.StringIO()
    handler = LineWriter(stream, lambda dropped: f"dropped {dropped}")
    before = threading.active_count()
    handler.put(json.dumps({"event": "last"}))
    handler.close()
    assert stream.getvalue() == '{"event": "last"}\n'
    while threading.active_count() >= before:  # ends by the timeout of the test run if the thread stays
        time.sleep(0.01)
