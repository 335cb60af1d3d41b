"""A platform in a package of its own: its exports, its calls, and what happens where the package is missing."""

import asyncio
import json
import os
import pty
import subprocess
from hashlib import sha256
from pathlib import Path

import aiohttp
import pytest

from export_worker.simulator.scenario import Fault
from support import worker_site
from support.tiny_platform import EXPORT, TinySite, install, tiny_site
from support.worker_site import COMMAND, Ran, Site

REQUEST = json.dumps({"connection": "tiny", "export": EXPORT})
KIND = "tiny.list_users"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package is installed: nowhere that other tests would see."""
    return install(tmp_path_factory.mktemp("tiny"))


def refusal(ran: Ran) -> dict[str, str]:
    """What was refused: field → message."""
    assert ran.status == 2, ran
    assert "Traceback" not in ran.stderr
    return {problem["field"]: problem["message"] for problem in json.loads(ran.stdout)["error"]["fields"]}


async def source_bytes(tiny: TinySite) -> bytes:
    """What the platform's file holds, asked for beside all faults."""
    [job] = list(tiny.world.jobs)
    url = f"{tiny.site.tree()['connections']['tiny']['base_url']}/_sim/content"
    async with aiohttp.ClientSession() as session, session.get(url, params={"job": job.job_id}) as answer:
        return await answer.read()


@pytest.mark.parametrize("flaky", [False, True], ids=["good", "flaky"])
async def test_an_export_runs_through_a_real_worker(site: Site, packages: Path, flaky: bool) -> None:
    async with tiny_site(site, packages) as tiny:
        tiny.world.scenario = tiny.world.scenario.model_copy(update={"flaky": flaky})
        accepted = json.loads((await tiny.run("enqueue", "-", "--json", stdin=REQUEST)).stdout)
        worked = await tiny.run("run", "--burst")
        status = json.loads((await tiny.run("status", accepted["export_id"], "--json")).stdout)
        expected = await source_bytes(tiny)

    assert worked.status == 0, worked
    assert (status["phase"], status["kind"], status["platform_stage"]) == ("succeeded", KIND, "done")
    [stored] = status["objects"]
    assert site.objects()[stored["key"]] == expected
    assert stored["key"].startswith(f"{KIND}/dt=")
    assert (status["counters"]["retries"] > 0) == flaky


async def test_a_request_of_the_kind_is_checked_as_any_other(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        wrong = {"connection": "tiny", "export": EXPORT | {"list_name": "No!", "colour": "red"}}
        found = refusal(await tiny.run("enqueue", "-", "--json", stdin=json.dumps(wrong)))
    assert found["export.list_name"] == "must match ^[a-z]{1,24}$"
    assert found["export.colour"] == "unknown field; allowed here: kind, list_name"


async def test_the_kind_is_in_the_schema_where_it_is_installed_and_only_there(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        there = json.loads((await tiny.run("schema", "request")).stdout)
    here = json.loads((await asyncio.to_thread(site.command, "schema", "request")).stdout)

    kinds = there["properties"]["export"]["discriminator"]["mapping"]
    assert there["$defs"][kinds[KIND].rpartition("/")[2]]["required"] == ["list_name"]
    assert kinds.keys() - here["properties"]["export"]["discriminator"]["mapping"].keys() == {KIND}


async def test_without_the_package_the_kind_is_refused_and_the_platform_is_unknown(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        refused = await asyncio.to_thread(tiny.site.command, "enqueue", "-", "--json", stdin=REQUEST)
        worked = await asyncio.to_thread(tiny.site.command, "run", "--burst")
    message = refusal(refused)["export.kind"]
    assert message.startswith("must be one of growingio.tag_users, ")
    assert KIND not in message
    assert worked.status == 2
    assert "connections.tiny.platform: 'tiny' is not installed; installed are growingio" in worked.stderr


async def test_a_worker_without_the_package_leaves_the_export_to_one_that_has_it(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        accepted = json.loads((await tiny.run("enqueue", "-", "--json", stdin=REQUEST)).stdout)
        async with worker_site.worker(site), site.queue() as queue:
            ours = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
            other = await worker_site.export(site, json.dumps({"connection": "gio", "export": ours}))
            # It was accepted before: the worker has looked at it, and given it back.
            worked = await tiny.run("run", "--burst")
            status = await queue.status(accepted["export_id"])
            notes = [entry["note"] for entry in await queue.timeline(accepted["export_id"])]

    assert (other.phase, status.phase) == ("succeeded", "succeeded")
    assert worked.status == 0, worked
    assert not any("again" in note for note in notes), "whoever cannot read it has done nothing to it"


async def test_a_cancel_in_the_middle_of_a_submit_reaches_the_platform(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        # Longer than a heartbeat, which hears of the cancel.
        tiny.world.faults.add(Fault(on="submit", fault="slow", delay_s=1.5))
        accepted = json.loads((await tiny.run("enqueue", "-", "--json", stdin=REQUEST)).stdout)
        async with tiny.site.queue() as queue:
            with tiny.site.process("run", PYTHONPATH=tiny.path):
                async with asyncio.timeout(30):
                    while not tiny.world.requests:
                        await asyncio.sleep(0.02)
                await queue.cancel(accepted["export_id"])
                status = await queue.wait(accepted["export_id"], 30)
            notes = [entry["note"] for entry in await queue.timeline(accepted["export_id"])]

    [job] = tiny.world.jobs
    assert (status.phase, status.operation_id, tiny.seen.cancelled) == ("cancelled", job.job_id, [job.job_id])
    assert notes[-2:] == [f"submitted as {job.job_id}", f"cancelled; {job.job_id} is cancelled on the platform"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('no licence')", "cannot be loaded: no licence"),
        ("import no_such_package", "cannot be loaded: No module named 'no_such_package'"),
        ("class TinyListUsers: pass", "is no subclass of OtherKind"),
        ("from export_worker.contract.kinds import OtherKind as TinyListUsers", "must have kind = 'tiny.list_users'"),
    ],
)
async def test_a_kind_that_cannot_be_used_stops_the_command_with_its_name(
    site: Site, tmp_path: Path, source: str, said: str
) -> None:
    broken = await asyncio.to_thread(install, tmp_path)
    (broken / "tiny_platform" / "kinds.py").write_text(source, encoding="utf-8")
    async with tiny_site(site, broken) as tiny:
        ran = await tiny.run("enqueue", "-", "--json", stdin=REQUEST)
    assert ran.status == 2, ran
    assert KIND in ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


async def test_a_kind_of_ours_cannot_be_taken(site: Site, tmp_path: Path) -> None:
    packages = await asyncio.to_thread(install, tmp_path)
    for file in (*packages.glob("*.dist-info/entry_points.txt"), packages / "tiny_platform" / "kinds.py"):
        file.write_text(file.read_text(encoding="utf-8").replace(KIND, "growingio.analysis"), encoding="utf-8")
    async with tiny_site(site, packages) as tiny:
        ran = await tiny.run("enqueue", "-", "--json", stdin=REQUEST)
    assert ran.status == 2, ran
    assert "the kind growingio.analysis is export-worker's own" in ran.stderr


async def test_its_catalog_is_listed(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        ran = await tiny.run("catalog", "tiny", "segments", "--json")
    assert [item["id"] for item in json.loads(ran.stdout)] == ["buyers", "sleepers"]


async def test_csv_of_a_file_is_streamed(site: Site, packages: Path, tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_bytes(b"j77639\r\n" * 300_000)
    async with tiny_site(site, packages) as tiny:
        ran = await tiny.run("call", "tiny", "upload", "--param", "name=ids", "--body", str(file), "--json")
    assert json.loads(ran.stdout) == {"users": 2_400_000}
    [upload] = tiny.seen.uploads
    assert upload.sha256 == sha256(file.read_bytes()).hexdigest()
    assert upload.headers["Transfer-Encoding"] == "chunked"
    assert upload.headers["Content-Type"] == "text/csv"


async def test_csv_of_standard_input_goes_on_its_way_before_it_has_ended(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *("call", "tiny", "upload", "--param", "name=ids", "--body", "-", "--json"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=tiny.environment,
        )
        assert process.stdin is not None
        process.stdin.write(b"x" * 200_000)
        async with asyncio.timeout(30):
            while not any(upload.size_bytes for upload in tiny.seen.uploads):
                await asyncio.sleep(0.02)
        out, _ = await process.communicate(b"y" * 100_000)
    assert json.loads(out) == {"users": 300_000}


@pytest.mark.parametrize("body", [(), ("--body", "/no/such/file"), ("--body", "/")], ids=str)
async def test_csv_must_be_given_and_readable(site: Site, packages: Path, body: tuple[str, ...]) -> None:
    async with tiny_site(site, packages) as tiny:
        ran = await tiny.run("call", "tiny", "upload", "--param", "name=ids", *body, "--json")
    assert "body" in refusal(ran)
    assert tiny.world.requests_total == 0


async def test_a_json_body_and_parameters_complete_each_other(site: Site, packages: Path) -> None:
    asked = ("call", "tiny", "add", "--param", "name=x", "--body", "-", "--json")
    async with tiny_site(site, packages) as tiny:
        ran = await tiny.run(*asked, stdin='{"rule": {"a": 1}}')
        twice = await tiny.run(*asked, stdin='{"name": "y"}')
        large = await tiny.run(*asked, stdin=json.dumps({"rule": {"a": "x" * 4_200_000}}))
    assert json.loads(ran.stdout) == {"name": "x", "rule": {"a": 1}}
    assert refusal(twice) == {"name": "is given twice: as --param and in the body"}
    assert refusal(large)["body"].startswith("must have at most")


async def test_what_deletes_must_be_confirmed_where_nobody_can_be_asked(site: Site, packages: Path) -> None:
    asked = ("call", "tiny", "drop", "--param", "name=x", "--json")
    async with tiny_site(site, packages) as tiny:
        refused = await tiny.run(*asked, stdin="y\n")
        kept = list(tiny.seen.deleted)
        done = await tiny.run(*asked, "--yes")
    assert "--yes" in refusal(refused)
    assert (kept, tiny.seen.deleted, done.status) == ([], ["x"], 0)


@pytest.mark.parametrize(("answer", "status", "deleted"), [("y\n", 0, ["x"]), ("n\n", 1, []), ("\n", 1, [])], ids=repr)
async def test_what_deletes_asks_at_a_terminal(
    site: Site, packages: Path, answer: str, status: int, deleted: list[str]
) -> None:
    async with tiny_site(site, packages) as tiny:
        ran = await asyncio.to_thread(
            at_a_terminal, tiny, answer, "call", "tiny", "delete", "--param", "name=x", "--json"
        )
    assert ran.returncode == status, ran
    assert b"delete on tiny deletes (name=x). Go on?" in ran.stderr
    assert ran.stdout == (b"{}\n" if deleted else b"")
    assert tiny.seen.deleted == deleted


def at_a_terminal(tiny: TinySite, typed: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run `export-worker` with a terminal as its standard input, at which somebody has typed this already."""
    keyboard, terminal = pty.openpty()
    try:
        os.write(keyboard, typed.encode())
        return subprocess.run(
            [*COMMAND, *arguments], stdin=terminal, capture_output=True, timeout=50, env=tiny.environment, check=False
        )
    finally:
        os.close(terminal)
        os.close(keyboard)


async def test_a_failing_platform_is_told_as_for_any_other(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        tiny.world.faults.add(Fault(on="list", fault="unauthorized"))
        ran = await tiny.run("catalog", "tiny", "segments", "--json")
    assert (ran.status, json.loads(ran.stdout)["error"]["code"]) == (2, "auth_failed")


async def test_the_list_says_what_a_body_is_and_what_deletes(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        plain = await tiny.run("call", "tiny", "--list")
    for words in ("CSV", "JSON object", "asks first", "name*: text, at most 24 characters", "drop"):
        assert words in plain.stdout
