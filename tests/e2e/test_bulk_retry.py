"""`retry --failed` and the filters of `list`: what they select, leave out, ask and refuse."""

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import pytest
from arq.connections import ArqRedis

from export_producers.commands.bulk_retry import LISTED_MAX
from export_producers.reasons import fix
from export_producers.requesters import of_command_line
from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase
from export_worker.errors import OperationFailedError, PlatformUnavailableError, StepError
from export_worker.lifecycle import endings, transitions
from export_worker.redis.client import commands
from support.command_forks import COMMAND
from support.earlier_records import store_as_earlier
from support.redis_site import MANY, POLICY, REFUSED, QueueSite, request_of
from support.terminal import Terminal
from support.worker_site import CommandResult, Site

TEMPORARY = PlatformUnavailableError("HTTP 503")
ONE_ATTEMPT = replace(POLICY, max_attempts=1)


@dataclass
class Failures:
    """Makes failed exports without a worker process, and runs commands."""

    site: Site
    records: QueueSite

    async def add(self, error: StepError = TEMPORARY, connection: str = "gio") -> str:
        """Returns an export that has failed in its submit, as its last attempt."""
        export_id = await self.records.enqueue(connection)
        claimed = await self.records.one()
        decision = endings.after_failure(claimed.export, error, self.records.moment(), ONE_ATTEMPT)
        await self.records.commit(claimed, decision)
        return export_id

    async def run(self, *arguments: str) -> CommandResult:
        """Runs a command."""
        return await asyncio.to_thread(self.site.command, *arguments)

    async def phases(self, *export_ids: str) -> list[Phase]:
        """Returns the phases of exports."""
        return [(await self.records.queue.status(export_id)).phase for export_id in export_ids]


@pytest.fixture
async def failures(site: Site, arq_redis: ArqRedis) -> AsyncIterator[Failures]:
    gio = site.tree()["connections"]["gio"]
    site.settings = {"connections": {"gio": gio, "other": gio}}
    async with site.queue() as queue:
        limits = {"gio": MANY, "other": MANY}
        yield Failures(site, QueueSite(arq_redis, queue, Keys(site.namespace), limits))


async def begun_in(
    terminal: Terminal, failures: Failures, *options: str, stdout: IO[bytes] | int = subprocess.DEVNULL
) -> asyncio.subprocess.Process:
    """Starts a retry of the failed exports, which reads from a terminal and writes its messages to it."""
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        "retry",
        "--failed",
        *options,
        env=failures.site.environment(),
        stdin=terminal.stream,
        stdout=stdout,
        stderr=terminal.stream,
    )


async def test_list_is_filtered_by_error_connection_kind_and_time(failures: Failures) -> None:
    refused, temporary = await failures.add(REFUSED), await failures.add()
    elsewhere = await failures.add(REFUSED, "other")

    async def listed(*options: str) -> list[str]:
        ran = await failures.run("list", *options, "--json")
        return [status["export_id"] for status in json.loads(ran.stdout)]

    assert await listed("--error", "platform_refused") == [elsewhere, refused]
    assert await listed("--error", "platform_refused", "--phase", "failed", "--connection", "gio") == [refused]
    assert await listed("--kind", "growingio.tag_users", "--since", "1h", "--limit", "2") == [elsewhere, temporary]
    assert await listed("--kind", "growingio.analysis") == []
    newest = await failures.run("list", "--error", "platform_refused", "--limit", "1")
    assert newest.stderr == "the newest 1 of 2 exports; --limit shows more\n"
    none = await failures.run("list", "--error", "auth_failed", "--connection", "other")
    assert none.stdout == "no exports with error auth_failed of connection other\n"


async def test_list_is_filtered_by_requester_end_of_time_search_and_state(failures: Failures, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(request_of(metadata={"order": "42"}).model_dump_json(exclude_none=True))
    enqueued = await failures.run("enqueue", str(request), "--json")
    by_command = json.loads(enqueued.stdout)["export_id"]
    by_library = (await failures.records.queue.enqueue(request_of())).export_id
    status = json.loads((await failures.run("status", by_command, "--json")).stdout)
    assert status["requested_by"] == of_command_line()
    for options, expected in (
        (("--requested-by", status["requested_by"]), [by_command]),
        (("--requested-by", "library"), [by_library]),
        (("--until", "1h"), []),
        (("--until", "0s"), [by_library, by_command]),
        (("--search", "order=42"), [by_command]),
        (("--search", by_library[:8]), [by_library]),
    ):
        ran = await failures.run("list", *options, "--json")
        assert [each["export_id"] for each in json.loads(ran.stdout)] == expected
    keys = failures.records.keys
    await failures.records.redis.zadd(keys.parked("gio"), {keys.job_id(by_library, 0): 1})
    waiting = await failures.run("list", "--state", "waiting", "--json")
    assert [each["export_id"] for each in json.loads(waiting.stdout)] == [by_library]
    assert (await failures.run("list", "--state", "slow")).stdout == "no exports in state slow\n"
    unknown = await failures.run("list", "--requested-by", "libary")
    assert (unknown.status, "unknown requester 'libary'; did you mean library?" in unknown.stderr) == (2, True)
    shown = (await failures.run("status", by_command)).stdout
    assert re.search(f"requested by +{re.escape(status['requested_by'])}", shown)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--error", "platform_refussed"), "unknown error code 'platform_refussed'; did you mean platform_refused?"),
        (("--connection", "oter"), "unknown connection 'oter'; did you mean other?"),
        (("--kind", "growingio.tag_user"), "did you mean growingio.tag_users?"),
        (("--since", "yesterday"), "neither a date and time"),
    ],
)
async def test_misspelt_name_of_a_filter_is_refused(failures: Failures, options: tuple[str, str], message: str) -> None:
    for command in (("list",), ("retry", "--failed")):
        ran = await failures.run(*command, *options)
        assert ran.status == 2
        assert options[0] in ran.stderr
        assert message in ran.stderr


async def test_failures_shows_each_cause_with_how_many_a_retry_cannot_help(failures: Failures) -> None:
    await failures.add(REFUSED)
    refused = await failures.add(REFUSED)
    await failures.add()
    ran = await failures.run("failures")
    first, second, advice, third, fourth, _ = ran.stdout.splitlines()
    assert first == "      2 platform_refused on gio in step submit: growingio.tag_users"
    assert second.startswith("        no such tag  (last ")
    assert second.endswith(f", e.g. {refused}; a retry alone cannot help 2)")
    assert advice.strip() == fix("platform_refused", "en")
    assert third == "      1 platform_unavailable on gio in step submit: growingio.tag_users"
    assert fourth.startswith("        HTTP 503  (last ")
    groups = json.loads((await failures.run("failures", "--error", "platform_refused", "--json")).stdout)["groups"]
    assert [(group["count"], group["hopeless"]) for group in groups] == [(2, 2)]
    none = await failures.run("failures", "--since", "0s")
    assert none.stdout.startswith("no failed exports accepted since ")


async def test_list_by_error_in_another_phase_says_which_option_to_leave_out(failures: Failures) -> None:
    ran = await failures.run("list", "--error", "platform_error", "--phase", "queued")
    assert ran.status == 2
    assert "--error selects failed exports, but --phase is queued; leave out --phase" in ran.stderr


async def test_bulk_retry_leaves_out_what_a_retry_cannot_help(failures: Failures) -> None:
    temporary = await failures.add()
    refused = await failures.add(REFUSED)
    ran = await failures.run("retry", "--failed")
    assert (ran.status, ran.stdout) == (0, f"retrying {temporary} (growingio.tag_users)\n")
    assert ran.stderr.splitlines() == [
        "left out 1 export, because a retry alone cannot help:",
        f"      1 platform_refused: {fix('platform_refused')}",
        "To retry them after their cause is fixed, select them with --error CODE or --connection NAME.",
    ]
    assert await failures.phases(temporary, refused) == [Phase.QUEUED, Phase.FAILED]
    named = await failures.run("retry", "--failed", "--error", "platform_refused", "--json")
    assert [status["export_id"] for status in json.loads(named.stdout)] == [refused]


async def test_operation_that_ended_in_error_is_retried_only_by_another_operation(failures: Failures) -> None:
    site = failures.records
    export_id = await site.running()
    await site.fail(await site.one(), OperationFailedError("the platform's job ended in ERROR"))
    ran = await failures.run("retry", "--failed", "--dry-run")
    assert ran.stdout == "no failed export matches\n"
    assert f"1 platform_error: {fix('platform_error')}" in ran.stderr
    again = await failures.run("retry", "--failed", "--from", "submit")
    assert again.stdout == f"retrying {export_id} (growingio.tag_users)\n"


async def test_bulk_retry_selects_by_connection_and_limit(failures: Failures) -> None:
    first, second = await failures.add(), await failures.add()
    elsewhere = await failures.add(connection="other")
    dry = await failures.run("retry", "--failed", "--connection", "gio", "--dry-run", "--json")
    assert [status["export_id"] for status in json.loads(dry.stdout)] == [second, first]
    await failures.run("retry", "--failed", "--connection", "gio", "--limit", "1", "--per-second", "1000")
    assert await failures.phases(first, second, elsewhere) == [Phase.FAILED, Phase.QUEUED, Phase.FAILED]


async def test_bulk_retry_selects_by_search_requester_and_end_of_time(failures: Failures) -> None:
    export_id = await failures.add()
    await failures.add()
    for options, count in (
        (("--search", export_id[:8]), 1),
        (("--requested-by", "library"), 2),
        (("--until", "1h"), 0),
    ):
        ran = await failures.run("retry", "--failed", *options, "--dry-run", "--json")
        assert len(json.loads(ran.stdout)) == count, options


async def test_bulk_retry_leaves_out_exports_of_removed_connections_unless_they_are_named(failures: Failures) -> None:
    here, elsewhere = await failures.add(), await failures.add(connection="other")
    failures.site.settings = {}
    ran = await failures.run("retry", "--failed", "--error", "platform_unavailable")
    assert (ran.status, ran.stdout) == (0, f"retrying {here} (growingio.tag_users)\n")
    assert f"      1 unknown_connection: {fix('unknown_connection')}" in ran.stderr
    named = await failures.run("retry", "--failed", "--connection", "other")
    assert (named.status, named.stdout) == (0, f"retrying {elsewhere} (growingio.tag_users)\n")


async def test_bulk_retry_restarts_an_export_whose_kind_is_unknown_here(failures: Failures) -> None:
    export_id, keys = await failures.add(), failures.records.keys
    await store_as_earlier(failures.records, export_id)
    request = json.loads((await failures.records.record(export_id))["request"])
    request["export"] = {"kind": "growingio.removed"}
    await commands(failures.records.redis).hset(keys.export(export_id), mapping={"request": json.dumps(request)})
    ran = await failures.run("retry", "--failed")
    assert (ran.status, ran.stdout) == (0, f"retrying {export_id} (growingio.tag_users)\n")


async def test_export_that_another_caller_has_retried_is_not_restarted_again(failures: Failures) -> None:
    export_id, queue = await failures.add(), failures.records.queue
    with Terminal(80, 24) as terminal:
        running = await begun_in(terminal, failures)
        async with asyncio.timeout(30):
            while "Retry 1 export? [y/N]" not in terminal.text:
                await asyncio.sleep(0.02)
            await queue.retry(export_id)
            failures.records.catch_up()
            claimed, moment = await failures.records.one(), failures.records.moment()
            await failures.records.commit(claimed, transitions.restart(claimed.export, "submit", moment))
            claimed = await failures.records.one()
            await failures.records.commit(claimed, endings.after_cancel(claimed.export, moment))
            terminal.type(b"y\n")
            assert await running.wait() == 0
    assert "has been restarted in the meantime" in " ".join(terminal.text.split())
    assert await failures.phases(export_id) == [Phase.CANCELLED]


async def test_options_for_many_exports_require_failed(failures: Failures) -> None:
    ran = await failures.run("retry", "0" * 32, "--connection", "gio", "--per-second", "2", "--dry-run")
    assert ran.status == 2
    assert "--connection, --per-second, --dry-run: only with --failed" in ran.stderr


@pytest.mark.parametrize(("answer", "phase", "status"), [(b"n\n", Phase.FAILED, 1), (b"y\n", Phase.QUEUED, 0)])
async def test_bulk_retry_asks_in_a_terminal(failures: Failures, answer: bytes, phase: Phase, status: int) -> None:
    export_id = await failures.add()
    with Terminal(80, 24) as terminal:
        running = await begun_in(terminal, failures, "--per-second", "5")
        async with asyncio.timeout(30):
            while "Retry 1 export? [y/N]" not in terminal.text:
                await asyncio.sleep(0.02)
            assert await failures.phases(export_id) == [Phase.FAILED]
            terminal.type(answer)
            assert await running.wait() == status
    assert "      1 platform_unavailable on gio" in terminal.text
    assert "At 5 per second, this takes 0 s." in terminal.text
    assert await failures.phases(export_id) == [phase]


async def test_bulk_retry_with_yes_does_not_ask_in_a_terminal(failures: Failures) -> None:
    export_id = await failures.add()
    with Terminal(80, 24) as terminal:
        running = await begun_in(terminal, failures, "--yes", stdout=terminal.stream)
        async with asyncio.timeout(30):
            assert await running.wait() == 0
    assert f"retrying {export_id}" in terminal.text


async def test_bulk_retry_of_many_shows_progress_in_a_terminal_and_ends_with_a_sum(failures: Failures) -> None:
    await failures.add(REFUSED)
    many = [await failures.add() for _ in range(LISTED_MAX + 1)]
    with Terminal(100, 24) as terminal:
        running = await begun_in(terminal, failures, "--yes", stdout=terminal.stream)
        async with asyncio.timeout(30):
            assert await running.wait() == 0
    assert "retrying 0" not in terminal.text
    assert not any(export_id in terminal.text for export_id in many)
    assert f"{len(many)} of {len(many)}" in terminal.text
    assert f"retried {len(many)} of {len(many)} exports; left out: 1 platform_refused" in terminal.text
    assert set(await failures.phases(*many)) == {Phase.QUEUED}


async def test_bulk_retry_without_a_terminal_prints_each_export_and_the_sum(failures: Failures) -> None:
    first, second = await failures.add(), await failures.add()
    ran = await failures.run("retry", "--failed")
    assert ran.stdout == f"retrying {second} (growingio.tag_users)\nretrying {first} (growingio.tag_users)\n"
    assert ran.stderr == "retried 2 of 2 exports\n"


async def test_interrupted_bulk_retry_reports_how_many_are_left(failures: Failures) -> None:
    first, second = await failures.add(), await failures.add()
    arguments = ("retry", "--failed", "--per-second", "0.01")
    running = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        env=failures.site.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout is not None
    async with asyncio.timeout(30):
        assert await running.stdout.readline() == f"retrying {second} (growingio.tag_users)\n".encode()
        running.send_signal(signal.SIGINT)
        _, printed = await running.communicate()
    assert running.returncode == 130
    assert b"stopped after 1 of 2; 1 export not retried\n" in printed
    assert b"Traceback" not in printed
    assert await failures.phases(first, second) == [Phase.FAILED, Phase.QUEUED]
