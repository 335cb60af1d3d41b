"""No secret leaks: tests put each canary where it can be read, echoed or logged, and search all output for it.

At the end of the run `conftest` searches everything again.
"""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from support import secret_canaries, worker_site
from support.paths import ROOT, TESTS
from support.worker_site import Site

REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)


def test_search_finds_every_canary() -> None:
    for secret in secret_canaries.ALL:
        with pytest.raises(AssertionError):
            secret_canaries.check("here", f"before {secret} after".encode())


LEAKING = """
import logging, sys
from support import secret_canaries
def test_prints(): print(secret_canaries.TOKEN)
def test_writes_to_stderr(): sys.stderr.write(secret_canaries.AWS_SECRET_KEY)
def test_logs(): logging.error("%s", secret_canaries.TOKEN)
def test_is_clean(): print("canary")
"""


def test_printed_or_logged_canary_fails_the_test(tmp_path: Path) -> None:
    leaking = tmp_path / "test_leaking.py"
    leaking.write_text(LEAKING, encoding="utf-8")
    settings = str(ROOT / "pyproject.toml")
    command = [sys.executable, "-m", "pytest", "-c", settings, "-p", "conftest", str(leaking)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "3 failed, 1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("scheme", ["Token", "Bearer", "raw"])
async def test_credential_echoed_by_the_platform_is_masked_in_status_event_and_log(
    site: Site, world: World, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    site.connection = {"auth_scheme": scheme}
    site.settings = {"retry": {"first_s": 0.02, "max_s": 0.05, "max_attempts": 2}}
    for step in ("submit", "poll", "download"):
        world.faults.clear()
        world.faults.add(Fault(on=step, fault="echo_secret", times=None))
        with site.process("run", "--burst", "--log-level", "DEBUG") as running:
            status = await worker_site.export(site, REQUEST)
            running.process.wait(20)
        assert status.error is not None
        assert "***" in status.error.message
        (event,) = await site.events(status.export_id)
        for text in (status.model_dump_json(), event.model_dump_json(), caplog.text):
            secret_canaries.check("the status, event or log", text.encode())


async def test_oauth_secret_and_issued_token_are_masked_in_log_and_status(site: Site, world: World) -> None:
    site.connection = {"token": None, "client_secret": secret_canaries.OAUTH_SECRET}
    world.faults.add(Fault(on="token", fault="echo_secret"))
    world.faults.add(Fault(on="poll", fault="echo_secret"))
    with site.process("run", "--log-level", "DEBUG") as running:
        running.until_logged("worker.started")
        status = await worker_site.export(site, REQUEST)
    log = running.log.read_text(encoding="utf-8")

    issued = [record for record in world.requests if record.target.endswith("/access_token")]
    assert issued
    assert "sim-" not in log.replace("sim-token", "")
    secret_canaries.check("the log", log.encode())
    secret_canaries.check("the status", status.model_dump_json().encode())
