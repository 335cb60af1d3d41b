"""A platform in a separate package: exports, calls, a missing package, and the suite from installed wheels."""

import asyncio
import json
import os
import pty
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from export_worker.recipes.names import box_names
from export_worker.simulator.scenario import Fault
from support import command_forks, worker_site
from support.command_forks import COMMAND
from support.paths import ROOT
from support.tiny_platform import (
    EXPORT,
    PROJECT,
    TinySite,
    build_wheel,
    fresh_environment,
    install,
    path_with,
    run_suite,
    tiny_site,
)
from support.worker_site import CommandResult, Site

REQUEST = json.dumps({"connection": "tiny", "export": EXPORT})
KIND = "tiny.list_users"
TYPED = ("py.typed", "platforms/__init__.pyi", "simulator/__init__.pyi")
"""Files without which a type checker does not see the types of export-worker."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the package."""
    return build_wheel(PROJECT, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def packages(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory where the package is installed. Other tests do not see it."""
    directory = install(wheel, tmp_path_factory.mktemp("packages"))
    with command_forks.also_with(PYTHONPATH=path_with(directory)):
        yield directory


def problems_of(ran: CommandResult) -> dict[str, str]:
    """Returns the problems of a refused command: field → message."""
    assert ran.status == 2, ran
    assert "Traceback" not in ran.stderr
    return {problem["field"]: problem["message"] for problem in json.loads(ran.stdout)["error"]["fields"]}


async def source_bytes(tiny: TinySite) -> bytes:
    """Returns the content of the platform's file, which the simulator serves without faults."""
    [job] = list(tiny.world.jobs)
    url = f"{tiny.site.tree()['connections']['tiny']['base_url']}/_sim/content"
    async with aiohttp.ClientSession() as session, session.get(url, params={"job": job.job_id}) as answer:
        return await answer.read()


@pytest.mark.parametrize("flaky", [False, True], ids=["good", "flaky"])
async def test_real_worker_runs_export_of_separate_package(site: Site, packages: Path, flaky: bool) -> None:
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


async def test_wrong_request_of_kind_is_refused_with_names_of_fields(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        wrong = {"connection": "tiny", "export": EXPORT | {"list_name": "No!", "colour": "red"}}
        found = problems_of(await tiny.run("enqueue", "-", "--json", stdin=json.dumps(wrong)))
    assert found["export.list_name"] == "must match ^[a-z]{1,24}$"
    assert found["export.colour"] == "unknown field; allowed here: kind, list_name"


async def test_schema_contains_kind_only_where_package_is_installed(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        there = json.loads((await tiny.run("schema", "request")).stdout)
    here = json.loads((await asyncio.to_thread(site.command, "schema", "request")).stdout)

    kinds = there["properties"]["export"]["discriminator"]["mapping"]
    kind = there["$defs"][kinds[KIND].rpartition("/")[2]]
    assert kind["required"] == ["kind", "list_name"]
    assert kind["properties"]["list_name"]["description"].startswith("The name of the list")
    assert kinds.keys() - here["properties"]["export"]["discriminator"]["mapping"].keys() == {KIND}


async def test_schema_of_settings_has_platform_only_where_package_is_installed(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        there = json.loads((await tiny.run("schema", "config")).stdout)
    here = json.loads((await asyncio.to_thread(site.command, "schema", "config")).stdout)
    assert there["$defs"]["TinySettings"]["properties"]["platform"]["enum"] == ["tiny"]
    assert there["$defs"].keys() - here["$defs"].keys() == {"TinySettings"}


async def test_kind_and_platform_are_refused_without_package(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        refused = await asyncio.to_thread(tiny.site.command, "enqueue", "-", "--json", stdin=REQUEST)
        worked = await asyncio.to_thread(tiny.site.command, "run", "--burst")
    message = problems_of(refused)["export.kind"]
    assert message.startswith("must be one of growingio.tag_users, ")
    assert KIND not in message
    assert worked.status == 2
    assert "connections.tiny.platform: 'tiny' is not installed (in " in worked.stderr
    assert "; installed are growingio" in worked.stderr


async def test_export_is_run_by_worker_that_has_the_package(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        accepted = json.loads((await tiny.run("enqueue", "-", "--json", stdin=REQUEST)).stdout)
        async with worker_site.worker(site), site.queue() as queue:
            ours = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
            other = await worker_site.export(site, json.dumps({"connection": "gio", "export": ours}))
            # The other export was enqueued first, so the worker without the package has claimed it and handed it back.
            worked = await tiny.run("run", "--burst")
            status = await queue.status(accepted["export_id"])
            notes = [entry["note"] for entry in await queue.timeline(accepted["export_id"])]

    assert (other.phase, status.phase) == ("succeeded", "succeeded")
    assert worked.status == 0, worked
    assert not any("again" in note for note in notes), "a worker that cannot read an export does not change it"


async def test_cancel_during_submit_cancels_job_on_platform(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        # Longer than a heartbeat interval, because the worker learns of the cancellation with a heartbeat.
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
    ("source", "message"),
    [
        ("raise RuntimeError('no licence')", "cannot be loaded: no licence"),
        ("import no_such_package", "cannot be loaded: No module named 'no_such_package'"),
        ("class TinyListUsers: pass", "must be a subclass of OtherKind"),
        ("from export_worker.contract.kinds import OtherKind as TinyListUsers", "must have kind = 'tiny.list_users'"),
        (
            (
                "from typing import Literal\nfrom pydantic import SecretStr\n"
                "from export_worker.contract.kinds import OtherKind\n"
                "class TinyListUsers(OtherKind):\n    platform = 'tiny'\n    password: SecretStr\n"
                "    kind: Literal['tiny.list_users'] = 'tiny.list_users'"
            ),
            "must have no secret field",
        ),
    ],
)
async def test_unusable_kind_stops_command_with_its_name(
    site: Site, packages: Path, tmp_path: Path, source: str, message: str
) -> None:
    broken = shutil.copytree(packages, tmp_path / "packages")
    (broken / "tiny_platform" / "kinds.py").write_text(source, encoding="utf-8")
    async with tiny_site(site, broken) as tiny:
        ran = await tiny.run("enqueue", "-", "--json", stdin=REQUEST)
    assert ran.status == 2, ran
    assert KIND in ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


async def test_kind_of_export_worker_cannot_be_replaced(site: Site, packages: Path, tmp_path: Path) -> None:
    other = shutil.copytree(packages, tmp_path / "packages")
    for file in (*other.glob("*.dist-info/entry_points.txt"), other / "tiny_platform" / "kinds.py"):
        file.write_text(file.read_text(encoding="utf-8").replace(KIND, "growingio.analysis"), encoding="utf-8")
    async with tiny_site(site, other) as tiny:
        ran = await tiny.run("enqueue", "-", "--json", stdin=REQUEST)
    assert ran.status == 2, ran
    assert "the kind growingio.analysis is built into export-worker" in ran.stderr


async def test_catalog_is_listed(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        ran = await tiny.run("catalog", "tiny", "segments", "--json")
    assert [item["id"] for item in json.loads(ran.stdout)] == ["buyers", "sleepers"]


async def test_csv_body_of_file_is_sent_with_its_length(site: Site, packages: Path, tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_bytes(b"j77639\r\n" * 300_000)
    async with tiny_site(site, packages) as tiny:
        ran = await tiny.run("call", "tiny", "upload", "--param", "name=ids", "--body", str(file), "--json")
    assert json.loads(ran.stdout) == {"users": 2_400_000}
    [upload] = tiny.seen.uploads
    assert upload.sha256 == sha256(file.read_bytes()).hexdigest()
    assert upload.headers["Content-Length"] == str(file.stat().st_size)
    assert upload.headers["Content-Type"] == "text/csv"


async def test_csv_body_of_standard_input_is_sent_before_it_ends(site: Site, packages: Path) -> None:
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
async def test_missing_or_unreadable_csv_body_is_refused_before_any_request(
    site: Site, packages: Path, body: tuple[str, ...]
) -> None:
    async with tiny_site(site, packages) as tiny:
        ran = await tiny.run("call", "tiny", "upload", "--param", "name=ids", *body, "--json")
    assert "body" in problems_of(ran)
    assert tiny.world.requests_total == 0


async def test_json_body_and_parameters_are_merged(site: Site, packages: Path) -> None:
    arguments = ("call", "tiny", "add", "--param", "name=x", "--body", "-", "--json")
    async with tiny_site(site, packages) as tiny:
        ran = await tiny.run(*arguments, stdin='{"rule": {"a": 1}}')
        twice = await tiny.run(*arguments, stdin='{"name": "y"}')
        large = await tiny.run(*arguments, stdin=json.dumps({"rule": {"a": "x" * 4_200_000}}))
    assert json.loads(ran.stdout) == {"name": "x", "rule": {"a": 1}}
    assert problems_of(twice) == {"name": "is given twice: as --param and in the body"}
    assert problems_of(large)["body"].startswith("must have at most")


async def test_deleting_operation_without_terminal_needs_yes_option(site: Site, packages: Path) -> None:
    arguments = ("call", "tiny", "drop", "--param", "name=x", "--json")
    async with tiny_site(site, packages) as tiny:
        refused = await tiny.run(*arguments, stdin="y\n")
        kept = list(tiny.seen.deleted)
        done = await tiny.run(*arguments, "--yes")
    assert "--yes" in problems_of(refused)
    assert (kept, tiny.seen.deleted, done.status) == ([], ["x"], 0)


@pytest.mark.parametrize(("answer", "status", "deleted"), [("y\n", 0, ["x"]), ("n\n", 1, []), ("\n", 1, [])], ids=repr)
async def test_deleting_operation_at_terminal_asks_for_confirmation(
    site: Site, packages: Path, answer: str, status: int, deleted: list[str]
) -> None:
    async with tiny_site(site, packages) as tiny:
        ran = await asyncio.to_thread(
            run_at_terminal, tiny, answer, "call", "tiny", "delete", "--param", "name=x", "--json"
        )
    assert ran.returncode == status, ran
    assert b"delete on tiny deletes (name=x). Continue?" in ran.stderr
    assert ran.stdout == (b"{}\n" if deleted else b"")
    assert tiny.seen.deleted == deleted


def run_at_terminal(tiny: TinySite, typed: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Runs `export-worker` with a terminal as its standard input, where `typed` has already been entered."""
    keyboard, terminal = pty.openpty()
    try:
        os.write(keyboard, typed.encode())
        return subprocess.run(
            [*COMMAND, *arguments], stdin=terminal, capture_output=True, timeout=50, env=tiny.environment, check=False
        )
    finally:
        os.close(terminal)
        os.close(keyboard)


async def test_error_of_platform_has_code(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        tiny.world.faults.add(Fault(on="list", fault="unauthorized"))
        ran = await tiny.run("catalog", "tiny", "segments", "--json")
    assert (ran.status, json.loads(ran.stdout)["error"]["code"]) == (2, "auth_failed")


async def test_list_shows_bodies_and_deleting_operations(site: Site, packages: Path) -> None:
    async with tiny_site(site, packages) as tiny:
        plain = await tiny.run("call", "tiny", "--list")
    for text in ("CSV", "JSON object", "asks first", "name*: text, at most 24 characters", "drop"):
        assert text in plain.stdout


def test_conformance_suite_runs_from_installed_wheels(wheel: Path, tmp_path: Path) -> None:
    own = build_wheel(ROOT, tmp_path / "dist")
    python = fresh_environment(tmp_path / "environment", own, wheel)
    ran = run_suite(python, tmp_path / "checkout")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    [passed] = re.findall(r"^(\d+) passed in ", ran.stdout, re.MULTILINE)
    assert int(passed) > 40
    located = subprocess.run(
        [python, "-c", "import export_worker; print(export_worker.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert located.stdout.startswith(str(tmp_path / "environment")), "the suite ran from the checkout"
    recipes = {f"recipes/box/{name}.toml" for name in box_names()}
    with zipfile.ZipFile(own) as archive:
        assert {f"export_worker/{path}" for path in {*TYPED, *recipes}} <= set(archive.namelist())
    checked = check_of_recipe(python, tmp_path)
    assert checked["ok"], checked


def check_of_recipe(python: Path, folder: Path) -> dict[str, Any]:
    """Checks a recipe of the box in a folder whose own settings of pytest would stop every run."""
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n", encoding="utf-8")
    (folder / "conftest.py").write_text("raise RuntimeError\n", encoding="utf-8")
    environment = {"PATH": os.environ["PATH"], "PYTEST_ADDOPTS": "--no-such-option", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(python), "-m", "export_worker", "recipe", "check", "amplitude", "--json"]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found
