"""Secrets that are exchanged while they are used."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr
from structlog.testing import capture_logs

import export_worker.secrets.secret as secret_module
from export_worker.contract.auth import BearerAuth
from export_worker.credentials import Redactor
from export_worker.errors import AuthFailedError, ConfigError
from export_worker.platforms.http.auth import check_header_value
from export_worker.platforms.http.auths import build_auth
from export_worker.platforms.http.client import Call, HttpClient
from export_worker.platforms.http.outgoing import Auth
from export_worker.secrets.secret import KNOWN_VALUES, Secret
from support.scripted_server import ScriptedServer, Seen

SETTING = "connections.gio.token"


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Mounted:
    """A directory with a token, exchanged as Kubernetes does it: the directory is a link that is replaced."""

    def __init__(self, root: Path, token: str) -> None:
        self._root = root
        self._count = 0
        self.path = root / "data" / "token"
        self.exchange(token)

    def exchange(self, token: str) -> None:
        self._count += 1
        version = self._root / f"version-{self._count}"
        version.mkdir()
        (version / "token").write_text(f"{token}\n")
        (self._root / "new").symlink_to(version)
        (self._root / "new").replace(self._root / "data")


def secret_of(mounted: Mounted, redactor: Redactor, clock: Clock) -> Secret:
    return Secret(SecretStr(f"file:{mounted.path}"), SETTING, redactor, clock=clock).must(check_header_value)


async def test_exchanged_file_is_read_again_after_a_second_and_both_values_are_masked(tmp_path: Path) -> None:
    mounted, redactor, clock = Mounted(tmp_path, "token-1"), Redactor(), Clock()
    secret = secret_of(mounted, redactor, clock)
    mounted.exchange("token-2")
    assert await secret.value() == "token-1"
    clock.now_s += 1
    assert await secret.value() == "token-2"
    assert redactor.text("token-1 token-2") == "*** ***"


async def test_values_that_no_late_answer_can_repeat_are_not_masked_any_more(tmp_path: Path) -> None:
    mounted, redactor = Mounted(tmp_path, "token-0"), Redactor()
    secret = secret_of(mounted, redactor, Clock())
    for number in range(1, KNOWN_VALUES + 1):
        mounted.exchange(f"token-{number}")
        assert await secret.reread() == f"token-{number}"
    assert redactor.text("token-0 token-1 token-4") == "token-0 *** ***"


@pytest.mark.parametrize("unusable", ["", "to\nken", "x" * 17_000], ids=["empty", "two lines", "too long"])
async def test_value_that_cannot_be_used_is_reported_once_and_the_previous_one_stays(
    tmp_path: Path, unusable: str
) -> None:
    mounted, redactor = Mounted(tmp_path, "token-1"), Redactor()
    secret = secret_of(mounted, redactor, Clock())
    mounted.exchange(unusable)
    with capture_logs() as logs:
        assert [await secret.reread(), await secret.reread()] == ["token-1", "token-1"]
    [log] = logs
    assert log["event"] == "secret.not_exchanged"
    assert log["problem"].startswith(f"{SETTING}: ")
    assert unusable not in str(log) or not unusable


async def test_read_that_hangs_delays_a_refused_call_for_a_limited_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_module, "REREAD_WAIT_S", 0.05)
    mounted = Mounted(tmp_path, "token-1")
    secret = secret_of(mounted, Redactor(), Clock())
    mounted.path.unlink()
    os.mkfifo(mounted.path)
    assert [await secret.reread(), await secret.reread()] == ["token-1", "token-1"]
    pipe = mounted.path.rename(tmp_path / "pipe")
    mounted.exchange("token-2")
    # Releases the thread that waits for a writer. It never blocks, also if there is none.
    os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
    assert await secret.reread() in {"token-1", "token-2"}


async def test_value_in_use_stays_masked_however_many_others_cannot_be_used(tmp_path: Path) -> None:
    mounted, redactor = Mounted(tmp_path, "token-1"), Redactor()
    secret = secret_of(mounted, redactor, Clock())
    for number in range(KNOWN_VALUES + 1):
        mounted.exchange(f"un\nusable-{number}")
        assert await secret.reread() == "token-1"
    assert redactor.text("token-1") == "***"


def test_reference_that_cannot_be_read_at_the_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{SETTING}: cannot read"):
        Secret(SecretStr(f"file:{tmp_path / 'none'}"), SETTING, Redactor())


async def test_constant_is_never_read_again() -> None:
    secret = Secret(SecretStr("fixed"), SETTING, Redactor(), clock=Clock())
    assert [await secret.value(), await secret.reread()] == ["fixed", "fixed"]


async def test_variable_is_read_again_after_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIO_TOKEN", "token-1")
    secret = Secret(SecretStr("env:GIO_TOKEN"), SETTING, Redactor(), clock=Clock())
    monkeypatch.setenv("GIO_TOKEN", "token-2")
    assert [await secret.value(), await secret.reread()] == ["token-1", "token-2"]


@asynccontextmanager
async def connected(server: ScriptedServer, mounted: Mounted) -> AsyncIterator[tuple[HttpClient, Auth]]:
    redactor = Redactor()
    client = HttpClient("gio", server.url, redactor)
    yield client, build_auth(BearerAuth(), lambda _: secret_of(mounted, redactor, Clock()), client)
    await client.close()


async def test_twenty_refused_calls_succeed_with_the_exchanged_token(tmp_path: Path) -> None:
    mounted, refused, all_refused = Mounted(tmp_path, "token-1"), 0, asyncio.Event()

    async def reply(seen: Seen) -> web.StreamResponse:
        nonlocal refused
        if seen.headers["Authorization"] == "Bearer token-2":
            return web.json_response("done")
        refused += 1
        if refused == 20:
            all_refused.set()
        await all_refused.wait()
        return web.Response(status=401)

    async with ScriptedServer() as server, connected(server, mounted) as (client, auth):
        server.on("/x", reply)
        mounted.exchange("token-2")
        with capture_logs() as logs:
            results = await asyncio.gather(*(client.call(Call("GET", "/x"), auth) for _ in range(20)))
    assert results == ["done"] * 20
    assert len(server.seen) == 40
    assert [log["event"] for log in logs] == ["secret.exchanged"]


async def test_refused_token_that_was_not_exchanged_is_not_sent_again(tmp_path: Path) -> None:
    async def reply(_: Seen) -> web.StreamResponse:
        return web.Response(status=401)

    async with ScriptedServer() as server, connected(server, Mounted(tmp_path, "token-1")) as (client, auth):
        server.on("/x", reply)
        with pytest.raises(AuthFailedError):
            await client.call(Call("GET", "/x"), auth)
    assert len(server.seen) == 1
