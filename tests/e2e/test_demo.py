"""The command `demo`, run as a new user runs it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from export_worker.contract.kind_names import PLATFORM_OF_KIND
from export_worker.demo.first_line import STARTING
from export_worker.demo.requests import EXPORTS, RECIPES
from export_worker.demo.services import USUAL_PORTS
from export_worker.demo.showcase import OUTAGE, SLOW
from support import worker_site
from support.deployment import blocks
from support.terminal import Terminal
from support.worker_site import Site

COMMAND = [sys.executable, "-m", "export_worker", "demo"]
IN_A_SMALL_TERMINAL = (80, 24)
KINDS = {*PLATFORM_OF_KIND, *(export["kind"] for _, export in RECIPES)}
TOTAL = 2 * len(EXPORTS)
"""The exports of both rounds."""


@pytest.mark.timeout(120)
def test_demo_completes_every_kind_in_both_rounds_and_exits_0() -> None:
    with Terminal(*IN_A_SMALL_TERMINAL) as terminal:
        done = subprocess.run(
            [*COMMAND, "--json"], stdout=subprocess.PIPE, stderr=terminal.stream, text=True, timeout=110, check=False
        )

    assert done.returncode == 0, terminal.text
    document = json.loads(done.stdout)
    exports = document["exports"]
    assert [status["phase"] for status in exports] == ["succeeded"] * TOTAL
    assert {status["kind"] for status in exports} == KINDS
    flaky = [status for status in exports if status["metadata"]["weather"] == "flaky"]
    # The platform refuses the first submit of each, and two connections submit the same user group. While the calls of
    # a kind fail for several exports, a failure uses no attempt, so not every export has counted one.
    assert {status["kind"] for status in flaky if status["counters"]["submits"] > 1} == KINDS
    assert sum(status["counters"]["submits"] > 1 for status in flaky) >= len(flaky) - 1
    assert any(status["counters"]["retries"] for status in flaky)
    assert {event["subject"] for event in document["events"]} == {status["export_id"] for status in exports}
    assert len({event["id"] for event in document["events"]}) == TOTAL
    for text in (STARTING, "Round 1 of 2", "Round 2 of 2", "Waiting for "):
        assert text in terminal.text


@contextmanager
def serving(log: Path) -> Iterator[list[str]]:
    """Runs `demo --serve` until the context ends, and yields the lines that it has printed."""
    with log.open("w", encoding="utf-8") as stream:
        demo = subprocess.Popen([*COMMAND, "--serve"], stdout=stream, stderr=stream)
    try:
        worker_site.wait_until(lambda: "Press Ctrl-C to stop" in log.read_text(encoding="utf-8"), 90, "the demo is up")
        yield log.read_text(encoding="utf-8").splitlines()
    finally:
        demo.send_signal(signal.SIGINT)
        assert demo.wait(40) == 0


def pasted(script: str, directory: Path) -> str:
    """Returns what a shell prints into which a script is pasted. The directory has nothing of this repository."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("EXPORT_", "AWS_"))}
    done = subprocess.run(
        ["bash", "-eu"],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        cwd=directory,
        check=False,
    )
    assert done.returncode == 0, done
    return done.stdout


@pytest.mark.timeout(120)
def test_commands_that_demo_with_serve_prints_can_be_pasted(site: Site, tmp_path: Path) -> None:
    log = site.outputs / "demo-serve.txt"
    with serving(log) as lines:
        start = next(number for number, line in enumerate(lines) if line.startswith("# "))
        printed = pasted("\n".join(lines[start:-1]), tmp_path)
        (example,) = blocks("README.md", "python")
        redis_url = next(line.split()[1] for line in lines if line.startswith("Redis "))
        # Another program may use the port of the example here. Then the page says which address to use.
        example = example.replace(f"redis://127.0.0.1:{USUAL_PORTS['redis']}/0", redis_url)
        (tmp_path / "example.py").write_text(example, encoding="utf-8")
        from_readme = pasted(f"{sys.executable} example.py", tmp_path)
        console = next(line.split()[1] for line in lines if line.startswith("Console "))
        page = pasted(f"curl -sSf {console}", tmp_path)
        worker_site.wait_until(lambda: all(shown(console)), 60, "the console shows each state")

    command, python, http, listed = "file(s)", "succeeded ['s3://", '"phase":"queued"', "succeeded"
    assert all(text in printed for text in (command, python, listed)), printed
    assert http in printed.replace(" ", ""), printed
    assert "<html" in page
    assert from_readme.startswith("succeeded ['s3://demo-exports/")
    text = log.read_text(encoding="utf-8")
    assert f"{TOTAL} of {TOTAL} exports succeeded, {TOTAL} events received" in text
    assert "Traceback" not in text


def shown(console: str) -> tuple[bool, ...]:
    """Returns whether the overview has what the console can show: exports that run, fail and wait, and why."""
    with urlopen(console.replace("/console/", "/v1/overview"), timeout=20) as response:
        overview = json.load(response)
    connections, (trigger,) = overview["connections"], overview["triggers"].values()
    return (
        overview["phases"]["failed"] > 0,
        overview["phases"]["running"] + overview["phases"]["transferring"] > 0,
        connections[SLOW]["waiting"] > 0,
        (connections[OUTAGE]["breaker"]["platform"] or {}).get("failures", 0) > 0,
        overview["sinks"]["crm"]["refused_since"] is not None,
        trigger["dead_letters"] == 1,
    )


def processes_with(text: str) -> list[str]:
    """Returns the command lines of all processes that contain a text."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # the process has ended
            found.append(file.read_text(encoding="utf-8", errors="replace"))
    return [line for line in found if text in line]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "closed terminal"])
def test_demo_that_is_interrupted_while_it_starts_stops_everything(tmp_path: Path, number: signal.Signals) -> None:
    environment = dict(os.environ) | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, bufsize=1
    ) as demo:
        assert demo.stdout is not None
        first = demo.stdout.readline()
        demo.send_signal(number)
        rest = demo.stdout.read()
        assert demo.wait(40) == 1

    assert first.rstrip() == STARTING
    assert rest.startswith("Stopping everything. The demo was interrupted")
    assert rest.count("\n") == 1, rest
    assert list(tmp_path.iterdir()) == [], "the directory of the demo is left"
    assert processes_with(str(tmp_path)) == []
