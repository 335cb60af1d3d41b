"""The server of `command_forks`: imports all modules of `export-worker`, then forks a process for each command.

Each command has a keeper, which waits for its end and reports the status. The server itself never waits.
"""

import contextlib
import gc
import json
import os
import runpy
import socket
import struct
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

NUMBER = struct.Struct("!I")
"""The format of a number on the sockets."""
STREAMS = ("stdin", "stdout", "stderr")
EXTRA = (
    "export_worker.wiring.worker",
    "export_worker.platforms.growingio.driver",
    "export_producers.gateway.server",
)
"""Modules that a worker or a gateway imports when it starts."""


def main() -> None:
    """Forks a process for each request, until the other end of the socket is closed."""
    del sys.path[0]  # the folder of this file
    requests = socket.socket(fileno=int(sys.argv[1]))
    import_modules()
    while received := next_request(requests):
        request, descriptors = received
        forget_ended_keepers()
        if os.fork() == 0:
            requests.close()
            keep(request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def forget_ended_keepers() -> None:
    """Takes the status of keepers that have ended. Until then, the kernel keeps their entries."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def import_modules() -> None:
    """Imports what commands import, and lets botocore read its models of S3."""
    from export_worker.s3 import sessions

    targets = runpy.run_path(str(Path(__file__).with_name("command_tree.py")))["targets"]()
    for target in (*targets, *EXTRA):
        import_module(target.partition(":")[0])
    sessions.process_session().client("s3", region_name="us-east-1").close()
    gc.collect()
    gc.freeze()  # a collection in a command would copy the memory of all modules


def next_request(requests: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Returns a request and its files; None at the end."""
    head, descriptors, _, _ = socket.recv_fds(requests, NUMBER.size, len(STREAMS) + 1)
    if not head:
        return None
    (length,) = NUMBER.unpack(head)
    data = b""
    while len(data) < length:
        data += requests.recv(length - len(data))
    request: dict[str, Any] = json.loads(data)
    return request, descriptors


def keep(request: dict[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """Starts the command, reports its process id, waits for its end, and reports its status."""
    *streams, report = descriptors
    command = os.fork()
    if command == 0:
        os.close(report)
        run(request, streams)
    for stream in streams:
        os.close(stream)
    with socket.socket(fileno=report) as reports:
        reports.sendall(NUMBER.pack(command))
        reports.sendall(NUMBER.pack(os.waitpid(command, 0)[1]))
    os._exit(0)


def run(request: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    """Runs `python -m export_worker` in this process, which ends as an interpreter ends."""
    for number, (name, stream) in enumerate(zip(STREAMS, streams, strict=True)):
        os.dup2(stream, number)
        os.close(stream)
        replace_stream(name, number)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    sys.argv = ["export_worker", *request["arguments"]]
    sys.path.insert(0, request["directory"])
    runpy.run_module("export_worker", run_name="__main__", alter_sys=True)
    sys.exit(0)


def replace_stream(name: str, number: int) -> None:
    """Opens a standard stream as an interpreter does when it starts."""
    before = getattr(sys, name)
    mode = "w" if number else "r"
    opened: Any = open(number, mode, encoding=before.encoding, errors=before.errors, closefd=False)  # noqa: SIM115  # never closed
    opened.reconfigure(line_buffering=number == 2 or opened.isatty(), write_through=before.write_through)
    setattr(sys, name, opened)
    setattr(sys, f"__{name}__", opened)


if __name__ == "__main__":
    main()
