"""The settings of a GrowingIO REST connection, and the registry that finds its driver."""

import asyncio
from typing import Any

import pytest

from export_worker.credentials import Redactor
from export_worker.errors import ConfigError
from export_worker.platforms.growingio_rest.driver import GrowingioRestDriver
from export_worker.platforms.registry import build_driver, installed_platforms
from export_worker.platforms.settings import ConnectionSettings
from support.scripted_server import CANARY


def settings(**options: Any) -> ConnectionSettings:
    base = {"platform": "growingio-rest", "base_url": "https://op.example.cn"}
    return ConnectionSettings.model_validate({**base, **options})


def refusal(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build_driver("rest", settings(**options), Redactor())
    assert "canary" not in str(caught.value)
    return str(caught.value)


def test_build_driver_finds_driver_by_platform() -> None:
    redactor = Redactor()
    built = build_driver("rest", settings(token=CANARY), redactor)
    assert isinstance(built, GrowingioRestDriver)
    assert "growingio-rest" in installed_platforms()
    assert redactor.text(f"a {CANARY}") == "a ***"
    asyncio.run(built.close())


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({}, "connections.rest: token is needed"),
        ({"client_secret": CANARY}, "connections.rest: growingio-rest takes neither client_secret nor api_key"),
        ({"token": CANARY, "api_key": CANARY}, "connections.rest: growingio-rest takes neither"),
        ({"token": f"{CANARY}\n"}, "connections.rest.token: must be printable ASCII"),
        ({"token": "env:NO_SUCH_VARIABLE_HERE"}, "connections.rest.token: environment variable NO_SUCH_VARIABLE_HERE"),
        ({"token": CANARY, "tokn": CANARY}, "connections.rest.tokn: unknown option; did you mean token?; known are "),
        ({"token": CANARY, "auth_scheme": "Token"}, "connections.rest.auth_scheme: unknown option"),
        ({"token": CANARY, "language": "DE"}, "connections.rest.language: must be 'CH' or 'US'"),
        ({"token": CANARY, "space_id": "../x"}, "connections.rest.space_id: "),
        ({"token": CANARY, "result_path": "/v1/api/job/result"}, "connections.rest.result_path: must be a path with"),
        ({"token": CANARY, "result_path": "v1/{id}"}, "connections.rest.result_path: must be a path with"),
        ({"token": CANARY, "result_path": "/v1/{id}/{space}"}, "connections.rest.result_path: must be a path with"),
        ({"token": CANARY, "result_path": "/v1/{id}?x=y"}, "connections.rest.result_path: must be a path with"),
        ({"token": CANARY, "result_path": "/v1/{id}/{id}"}, "connections.rest.result_path: must be a path with"),
    ],
)
def test_wrong_setting_is_refused_with_its_name(options: dict[str, Any], start: str) -> None:
    assert refusal(**options).startswith(start)
