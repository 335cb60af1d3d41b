"""Ctrl-C: commands say what continues, and no command ends with a traceback."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from support.command_forks import COMMAND
from support.terminal import Terminal
from support.worker_site import Running, Site, wait_until

EXPORT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
REQUEST = json.dumps({"connection": "gio", "export": EXPORT})
STATUS = 128 + signal.SIGINT
"""The exit status that shells expect of an interrupted command."""

SIGNAL_AT_IMPORT = """
import os, runpy, signal, sys

MODULE = sys.argv.pop()

class SignalAtImport:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, SignalAtImport())
runpy.run_module("export_worker", run_name="__main__", alter_sys=True)
"""


def output_after_interrupt(running: Running) -> str:
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(30) == STATUS
    text = running.log.read_text(encoding="utf-8")
    assert "Traceback" not in text
    assert "Aborted" not in text
    return text


def is_sleeping(pid: int) -> bool:
    """Returns whether the main thread of a process waits in a system call.

    CPython loses a signal that arrives just before its call that reads a line.
    """
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][0] == "S"


@pytest.mark.parametrize("module", ["click", "asyncio", "redis"])
def test_signal_while_modules_are_imported_ends_the_command_without_output(module: str) -> None:
    command = [sys.executable, "-c", SIGNAL_AT_IMPORT, "list", module]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_enqueue_that_is_interrupted_while_it_waits_says_that_the_export_continues(
    site: Site, options: tuple[str, ...]
) -> None:
    file = site.outputs / "request.json"
    file.write_text(REQUEST, encoding="utf-8")
    with site.process("enqueue", str(file), "--wait", *options) as running:
        running.until_logged("accepted: export ")
        text = output_after_interrupt(running)

    export_id = text.partition("accepted: export ")[2].split()[0]
    assert text.endswith(
        f"Interrupted. The export continues.\n"
        f"follow it with: export-worker watch {export_id}\n"
        f"cancel it with: export-worker cancel {export_id}\n"
    )
    assert json.loads(site.command("status", export_id, "--json").stdout)["phase"] == "queued"


@pytest.mark.parametrize("options", [(), ("--json",)])
async def test_watch_that_is_interrupted_says_that_the_export_continues(site: Site, options: tuple[str, ...]) -> None:
    async with site.queue() as queue:
        export_id = (await queue.enqueue(REQUEST)).export_id
    with site.process("watch", export_id, *options) as running:
        await asyncio.to_thread(running.until_logged, "queued")
        text = await asyncio.to_thread(output_after_interrupt, running)

    assert "Interrupted. The export continues.\n" in text
    assert text.endswith(f"cancel it with: export-worker cancel {export_id}\n")


def test_enqueue_that_is_interrupted_before_the_answer_says_that_the_export_may_exist(site: Site) -> None:
    file = site.outputs / "request.json"
    file.write_text(REQUEST, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        elsewhere = replace(site, redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        with elsewhere.process("enqueue", str(file)) as running:
            connection, _ = silent.accept()
            with connection:
                connection.recv(1)
                text = output_after_interrupt(running)

    assert text.lstrip() == (
        "Interrupted. The export may have been accepted, and then it runs: see export-worker list.\n"
        "With --idempotency-key, the same request can be sent again, and it is exported once.\n"
    )


def test_other_command_that_is_interrupted_says_only_that(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        elsewhere = replace(site, redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        with elsewhere.process("list") as running:
            connection, _ = silent.accept()
            with connection:
                connection.recv(1)
                assert output_after_interrupt(running).lstrip() == "Interrupted.\n"


def test_doctor_that_is_interrupted_does_not_wait_for_its_threads(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        elsewhere = replace(site, s3_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with elsewhere.process("doctor") as running:
            connection, _ = silent.accept()
            with connection:
                connection.recv(1)
                # Without the connection's end, the thread would wait for S3's timeouts.
                assert "Interrupted. The check of S3 may leave objects" in output_after_interrupt(running)


def test_call_that_is_interrupted_at_its_question_ends_at_once(site: Site) -> None:
    site.connection = {"platform": "sensorsdata", "project": "default"}
    command = [*COMMAND, "call", "gio", "delete", "--param", "id=42"]
    with Terminal(80, 24) as terminal:
        stream = terminal.stream
        with subprocess.Popen(command, env=site.environment(), stdin=stream, stdout=stream, stderr=stream) as call:
            try:
                wait_until(lambda: "Continue?" in terminal.text and is_sleeping(call.pid), 30, "the question")
                call.send_signal(signal.SIGINT)
                assert call.wait(20) == 1
            finally:
                call.kill()
    assert "Aborted!" in terminal.text
    assert "Traceback" not in terminal.text
