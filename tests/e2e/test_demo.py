"""The command `demo`, run as a new user runs it."""

import json
import os
import signal
import subprocess
import sys

import pytest

from export_worker.contract.kind_names import PLATFORM_OF_KIND
from support import worker_site
from support.worker_site import Site

COMMAND = [sys.executable, "-m", "export_worker", "demo"]


@pytest.mark.timeout(120)
def test_demo_completes_every_kind_in_both_rounds_and_exits_0() -> None:
    done = subprocess.run([*COMMAND, "--json"], capture_output=True, text=True, timeout=110, check=False)

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    exports = document["exports"]
    assert [status["phase"] for status in exports] == ["succeeded"] * 26
    assert {status["kind"] for status in exports} == set(PLATFORM_OF_KIND)
    flaky = [status["counters"] for status in exports if status["metadata"]["weather"] == "flaky"]
    # The platform refuses the first submit of each. While the calls of a kind fail for several exports, a failure uses
    # no attempt, so not every export has counted one.
    assert {counters["submits"] > 1 for counters in flaky} == {True}
    assert any(counters["retries"] for counters in flaky)
    assert {event["subject"] for event in document["events"]} == {status["export_id"] for status in exports}
    assert len({event["id"] for event in document["events"]}) == 26


@pytest.mark.timeout(120)
def test_demo_with_serve_accepts_further_exports_until_interrupted(site: Site) -> None:
    log = site.outputs / "demo-serve.txt"
    with log.open("w", encoding="utf-8") as stream:
        demo = subprocess.Popen([*COMMAND, "--serve"], stdout=stream, stderr=stream)
    try:
        worker_site.wait_until(lambda: "Press Ctrl-C to stop" in log.read_text(encoding="utf-8"), 90, "the demo is up")
        line = next(line for line in log.read_text(encoding="utf-8").splitlines() if "export EXPORT_CONFIG" in line)
        environment = dict(pair.split("=", 1) for pair in line.split()[1:])
        request = {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "tag_payment_times"}}
        ran = subprocess.run(
            [sys.executable, "-m", "export_worker", "enqueue", "-", "--wait", "--json"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=60,
            env=dict(os.environ) | environment,
            check=False,
        )
        assert json.loads(ran.stdout)["phase"] == "succeeded"
    finally:
        demo.send_signal(signal.SIGINT)
        assert demo.wait(40) == 0
    text = log.read_text(encoding="utf-8")
    assert "26 of 26 exports succeeded, 26 events received" in text
    assert "Traceback" not in text
