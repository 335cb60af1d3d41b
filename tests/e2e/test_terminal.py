"""The command line with unusual failures: invalid bytes, closed streams, and ports in use."""

import asyncio
import json
import socket
import subprocess
from typing import Any

import pytest

from export_worker.simulator.scenario import Fault, FaultName
from export_worker.simulator.world import World
from support import worker_site
from support.command_forks import COMMAND
from support.terminal import Terminal
from support.worker_site import CommandResult, Site

EXPORT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
REQUEST = json.dumps({"connection": "gio", "export": EXPORT})
NOT_UTF_8 = "\udcff"
"""Python's representation of the byte 0xFF in an argument."""


def refusal(ran: CommandResult, status: int = 2) -> dict[str, Any]:
    """Returns the error that stdout has as JSON, after checking that stderr has it as text."""
    assert ran.status == status, ran
    assert ran.stderr
    assert "Traceback" not in ran.stderr
    error: dict[str, Any] = json.loads(ran.stdout)["error"]
    return error


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (("list", "--limit", "0"), ["--limit"]),
        (("list", "--lmit", "5"), ["--lmit"]),
        (("status",), ["EXPORT_ID"]),
        (("enqueue", "-", "--timeout", "5"), []),
        (("enqueue", "-", "--wait", "--timeout", "nan"), ["--timeout"]),
        (("enqueue", "-", "--wait", "--timeout", "inf"), ["--timeout"]),
        (("enqueue", "-", "--idempotency-key", NOT_UTF_8), ["--idempotency-key"]),
        (("enqueue", f"/no/{NOT_UTF_8}"), ["FILE"]),
        (("status", NOT_UTF_8), ["EXPORT_ID"]),
        (("no-such-command",), []),
    ],
    ids=lambda it: " ".join(it).encode("ascii", "replace").decode(),
)
def test_wrong_arguments_are_reported_as_json(site: Site, arguments: tuple[str, ...], fields: list[str]) -> None:
    error = refusal(site.command(*arguments, "--json", stdin=REQUEST))

    assert error["code"] == "invalid_request"
    assert error["message"]
    assert [problem["field"] for problem in error["fields"]] == fields
    assert all(problem["message"] for problem in error["fields"])


def test_argument_after_two_dashes_is_no_option(site: Site) -> None:
    ran = site.command("status", "--", "--json")
    assert (ran.status, ran.stdout) == (3, "")


def test_closed_standard_input_is_reported(site: Site) -> None:
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, "enqueue", "-", "--json"]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=50, env=site.environment(), check=False)

    (problem,) = refusal(CommandResult(done.returncode, done.stdout, done.stderr))["fields"]
    assert problem == {"field": "FILE", "message": "standard input is closed"}


def test_enqueue_with_shortest_wait_prints_the_export_id(site: Site) -> None:
    plain = site.command("enqueue", "-", "--wait", "--timeout", "0.0000001", stdin=REQUEST)
    compact = site.command("enqueue", "-", "--wait", "--timeout", "0.0000001", "--json", stdin=REQUEST)

    assert (plain.status, compact.status) == (1, 1)
    status = json.loads(compact.stdout)
    assert compact.stderr.startswith(f"accepted: export {status['export_id']} is queued\n")
    assert "Traceback" not in plain.stderr + compact.stderr
    accepted, queued = plain.stdout.splitlines()
    export_id = accepted.removeprefix("accepted: export ").removesuffix(" is queued")
    assert export_id in queued
    assert site.command("status", export_id).status == 0


@pytest.mark.parametrize("arguments", [("--help",), ("schema", "reference"), ("status", "\u540d")])
def test_characters_that_an_encoding_lacks_are_escaped(site: Site, arguments: tuple[str, ...]) -> None:
    variables = site.environment() | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, timeout=50, env=variables, check=False)
    output = (done.stdout + done.stderr).decode("latin-1")
    assert "Traceback" not in output
    assert "\\u540d" in output or "\\u2026" in output


async def test_terminal_of_type_dumb_gets_a_line_for_each_change(site: Site) -> None:
    with Terminal(80, 24) as terminal:
        async with worker_site.worker(site):
            done = await asyncio.to_thread(
                subprocess.run,
                [*COMMAND, "enqueue", "-", "--wait"],
                input=REQUEST.encode(),
                stdout=terminal.stream,
                env=site.environment() | {"TERM": "dumb"},
                timeout=50,
                check=False,
            )
    assert done.returncode == 0
    assert "\x1b" not in terminal.text
    assert terminal.text.count("growingio") <= 1
    assert [line.split()[2] for line in terminal.text.splitlines()[1:]][-1] == "succeeded"


async def test_terminal_shows_subject_phases_and_files_of_an_export(site: Site) -> None:
    command = [*COMMAND, "enqueue", "-", "--wait"]
    with Terminal(80, 24) as terminal:
        async with worker_site.worker(site):
            done = await asyncio.to_thread(
                subprocess.run,
                command,
                input=REQUEST.encode(),
                stdout=terminal.stream,
                stderr=terminal.stream,
                env=site.environment() | {"TERM": "xterm"},
                timeout=50,
                check=False,
            )
        listed = site.command("list", "--json")
        (export,) = json.loads(listed.stdout)
        timeline = subprocess.run(
            [*COMMAND, "status", export["export_id"], "--timeline"],
            stdout=terminal.stream,
            env=site.environment() | {"TERM": "xterm"},
            timeout=50,
            check=False,
        )
    assert (done.returncode, timeline.returncode) == (0, 0)
    assert "growingio.segment_users segment qgQMXnD3 on gio" in terminal.text
    assert "\x1b[1;32msucceeded" in terminal.text
    assert export["manifest"] in terminal.text.replace("\r\n", "")
    assert "project_id = WlGk4Daj, segment_id = qgQMXnD3" in terminal.text
    assert "s ago)" in terminal.text


@pytest.mark.parametrize("arguments", [("--port", "taken"), ("--host", "nonsense.invalid"), ("--host", "a..b")])
def test_simulate_that_cannot_listen_exits_2_with_one_line(site: Site, arguments: tuple[str, str]) -> None:
    option, value = arguments
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        ran = site.command("simulate", option, port if value == "taken" else value)

    assert ran.status == 2, ran
    assert ran.stderr.startswith(f"error: {option}: cannot listen on ")
    assert ran.stderr.count("\n") == 1


async def test_enqueue_without_configured_connections_uses_those_that_workers_announce(site: Site) -> None:
    bare = Site(site.redis_url, site.s3_url, site.platform_url, site.namespace, site.bucket, site.outputs)
    bare.settings = {"connections": {}}
    arguments = ("enqueue", "-", "--json")

    no_worker = refusal(await asyncio.to_thread(bare.command, *arguments, stdin=REQUEST))
    async with worker_site.worker(site):
        accepted = await asyncio.to_thread(bare.command, *arguments, stdin=REQUEST)
        other = REQUEST.replace('"gio"', '"elsewhere"')
        unknown = refusal(await asyncio.to_thread(bare.command, *arguments, stdin=other))

    assert accepted.status == 0, accepted
    assert [problem["field"] for problem in no_worker["fields"] + unknown["fields"]] == ["connection", "connection"]
    assert "EXPORT_CONFIG" in no_worker["message"]
    assert "gio" in unknown["message"]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("unauthorized", 2, "auth_failed"),
        ("graphql_errors", 2, "platform_refused"),
        ("throttled", 4, "platform_throttled"),
        ("error5xx", 4, "platform_unavailable"),
        ("malformed", 4, "platform_malformed"),
    ],
)
@pytest.mark.parametrize("command", [("catalog", "gio", "tags", "--project"), ("call", "gio", "tags", "--param")])
async def test_failure_of_the_platform_has_its_exit_status_and_code(
    site: Site, world: World, command: tuple[str, ...], fault: FaultName, status: int, code: str
) -> None:
    world.faults.add(Fault(on="list", fault=fault, per="all", times=99))
    project = "WlGk4Daj" if command[0] == "catalog" else "projectId=WlGk4Daj"

    error = refusal(await asyncio.to_thread(site.command, *command, project, "--json"), status)

    assert error["code"] == code
