"""The settings of a GrowingIO connection, and the registry that finds its driver."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from export_worker.contract.request import GrowingioTagUsers
from export_worker.credentials import Redactor
from export_worker.errors import ConfigError
from export_worker.lifecycle.observations import Pending
from export_worker.platforms import registry
from export_worker.platforms.growingio.driver import GrowingioDriver
from export_worker.platforms.registry import build_driver, installed_platforms
from export_worker.platforms.settings import ConnectionSettings
from support.scripted_server import CANARY, ScriptedServer, json_replied

BASE = {"platform": "growingio", "base_url": "https://op.example.cn"}


def settings(**options: Any) -> ConnectionSettings:
    return ConnectionSettings.model_validate({**BASE, **options})


def refusal(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build_driver("gio", settings(**options), Redactor())
    assert "canary" not in str(caught.value)
    return str(caught.value)


def test_build_driver_finds_driver_by_platform() -> None:
    built = build_driver("gio", settings(token=CANARY), Redactor())
    assert isinstance(built, GrowingioDriver)
    assert "growingio" in installed_platforms()
    asyncio.run(built.close())


def test_unknown_platform_is_refused() -> None:
    message = refusal(platform="growing", token=CANARY)
    assert message.startswith(
        "connections.gio.platform: 'growing' is not installed; did you mean growingio?; installed are "
    )
    assert "growingio" in message


def test_driver_of_other_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "elsewhere-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[export_worker.platforms]\nelsewhere = no_such_module_here:Driver\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(registry, "_points", registry._points.__wrapped__)  # a process keeps what it has found
    assert "elsewhere" in installed_platforms()
    assert refusal(platform="elsewhere", token=CANARY).endswith("the driver of elsewhere needs no_such_module_here")


def test_unknown_option_is_refused_without_its_value() -> None:
    message = refusal(token=CANARY, tokn=CANARY)
    assert message.startswith("connections.gio.tokn: unknown option; did you mean token?; known are allow_hosts, ")
    assert "auth_scheme" in message


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({}, "connections.gio: exactly one of token and client_secret is needed"),
        ({"token": CANARY, "client_secret": CANARY}, "connections.gio: exactly one of token and client_secret"),
        ({"token": CANARY, "api_key": CANARY}, "connections.gio: growingio takes no api_key"),
        ({"token": CANARY, "auth_scheme": "token"}, "connections.gio.auth_scheme: must be 'Token', 'Bearer' or 'raw'"),
        ({"token": f"{CANARY}\n"}, "connections.gio.token: must be printable ASCII"),
        ({"token": "env:NO_SUCH_VARIABLE_HERE"}, "connections.gio.token: environment variable NO_SUCH_VARIABLE_HERE"),
        ({"client_secret": "file:/no/such/file"}, "connections.gio.client_secret: cannot read /no/such/file"),
        ({"token": CANARY, "base_url": "https://a:99999"}, "connections.gio.base_url: must be like"),
    ],
)
def test_wrong_setting_is_refused_with_its_name(options: dict[str, Any], start: str) -> None:
    assert refusal(**options).startswith(start)


def test_secret_reference_is_resolved_and_added_to_redactor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIO_TOKEN", CANARY)
    redactor = Redactor()
    build_driver("gio", settings(token="env:GIO_TOKEN"), redactor)
    assert redactor.text(f"a {CANARY}") == "a ***"


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ({"token": CANARY}, f"Token {CANARY}"),
        ({"token": CANARY, "auth_scheme": "Bearer"}, f"Bearer {CANARY}"),
        ({"token": CANARY, "auth_scheme": "raw"}, CANARY),
        ({"client_secret": CANARY}, "Token fresh-token"),
        ({"client_secret": CANARY, "auth_scheme": "Bearer"}, "Bearer fresh-token"),
    ],
)
async def test_settings_determine_authorization_header(options: dict[str, Any], header: str) -> None:
    async with ScriptedServer() as server:
        server.on("/accounts/oauth/access_token", json_replied({"access_token": "fresh-token"}))
        server.on("/graphql", json_replied({"data": {"jobResult": {"stage": "READY"}}}))
        built = build_driver("gio", settings(**options, base_url=server.url), Redactor())
        assert await built.poll(GrowingioTagUsers(tag_key="tag_a"), "id") == Pending("READY")
        await built.close()
    assert server.asked("/graphql")[0].headers["Authorization"] == header
