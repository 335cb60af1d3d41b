"""The settings of named keys and of the proxy of the gateway, and what the gateway makes of them."""

import os
from pathlib import Path

import pytest

from export_producers.gateway.callers.principals import Role
from export_producers.gateway.options import NamedKey
from export_worker.config import load_config
from export_worker.errors import ConfigError
from export_worker.wiring.gateway import gateway_options
from export_worker.wiring.secrets import build_redactor

SAMPLE = """
[connections.gio]
platform = "growingio"
base_url = "https://op.example.cn"

[gateway]
host = "0.0.0.0"

[gateway.keys.ci]
key = "env:CI_KEY"
role = "service"

[gateway.keys.oncall]
key = "file:oncall.txt"
role = "operator"
connections = ["gio"]

[gateway.proxy]
trusted = ["10.2.0.0/16", "fd00::/8"]
roles = { "sre" = "operator", "*" = "viewer" }
"""
KEY = '[gateway.keys.ci]\nkey = "secret-1"\n'


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.upper().startswith("EXPORT_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write(text: str) -> None:
    Path("export-worker.toml").write_text(text, encoding="utf-8")


def test_gateway_gets_keys_in_clear_and_they_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    write(SAMPLE)
    Path("oncall.txt").write_text("canary-of-oncall\n", encoding="utf-8")
    monkeypatch.setenv("CI_KEY", "canary-of-ci")
    config = load_config()
    options = gateway_options(config)
    options.check()
    assert options.keys == (
        NamedKey("ci", "canary-of-ci", Role.SERVICE),
        NamedKey("oncall", "canary-of-oncall", Role.OPERATOR, frozenset({"gio"})),
    )
    assert options.proxy is not None
    assert (options.proxy.user_header, options.proxy.groups_header) == ("X-Forwarded-User", "X-Forwarded-Groups")
    assert options.proxy.trusts("10.2.3.4")
    assert options.proxy.trusts("::ffff:10.2.3.4")
    assert options.proxy.trusts("fd00::1")
    assert not any(map(options.proxy.trusts, ("10.3.0.1", "::1", "", None, "unix")))
    redactor = build_redactor(config)
    assert "canary" not in redactor.text("canary-of-ci canary-of-oncall")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (KEY, "gateway.keys.ci.role: is required"),
        (KEY + "role = 'root'", "gateway.keys.ci.role: "),
        (KEY + "role = 'viewer'\nconnections = []", "gateway.keys.ci.connections: "),
        (KEY.replace("ci", "key-0") + "role = 'viewer'", "gateway.keys: key-0 is the name of a key of api_keys"),
        (KEY.replace("ci", "'a b'") + "role = 'viewer'", "gateway.keys.a b"),
        ("[gateway.proxy]\nroles = {}", "gateway.proxy.trusted: is required"),
        ("[gateway.proxy]\nroles = {}\ntrusted = ['0.0.0.0/0']", "gateway.proxy.trusted: must not contain all"),
        ("[gateway.proxy]\nroles = {}\ntrusted = ['::/0']", "gateway.proxy.trusted: must not contain all"),
        ("[gateway.proxy]\nroles = {}\ntrusted = ['10.0.0.1/8']", "gateway.proxy.trusted.0: "),
        ("[gateway.proxy]\nroles = { a = 'root' }\ntrusted = ['10.0.0.0/8']", "gateway.proxy.roles.a: "),
        ("[gateway.proxy]\nuser_header = 'a b'\nroles = {}\ntrusted = ['10.0.0.0/8']", "gateway.proxy.user_header: "),
        (
            SAMPLE.replace('["gio"]', '["goi"]'),
            "gateway.keys.oncall.connections: unknown connection 'goi' (in export-worker.toml, line 16); did",
        ),
    ],
)
def test_wrong_setting_is_refused_with_its_name_and_without_the_key(text: str, problem: str) -> None:
    write(text)
    with pytest.raises(ConfigError) as refused:
        load_config()
    assert problem in str(refused.value)
    assert "secret-1" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[gateway]\napi_keys = ['a-1234']\n[gateway.keys.ci]\nkey = 'a-1234'\nrole = 'viewer'", "is also another key"),
        ("[gateway.keys.ci]\nkey = ' '\nrole = 'viewer'", "gateway.keys.ci.key: is empty"),
        ("[gateway.keys.ci]\nkey = 'env:NOT_SET'\nrole = 'viewer'", "gateway.keys.ci.key: environment variable"),
        ("[gateway]\nhost = '0.0.0.0'", "without a key, the gateway binds only a loopback address"),
    ],
)
def test_gateway_does_not_start_with_unusable_keys(text: str, problem: str) -> None:
    write(text)
    with pytest.raises(ConfigError) as refused:
        gateway_options(load_config()).check()
    assert problem in str(refused.value)
    assert "a-1234" not in str(refused.value)


def test_variables_define_keys_and_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORT_GATEWAY__KEYS__CI__CONNECTIONS", '["gio"]')
    monkeypatch.setenv("EXPORT_GATEWAY__PROXY__TRUSTED", '["10.2.0.0/16"]')
    monkeypatch.setenv("EXPORT_GATEWAY__PROXY__ROLES", '{"sre": "operator", "*": "viewer"}')
    monkeypatch.setenv("EXPORT_GATEWAY__KEYS__CI__KEY", "a-1234")
    monkeypatch.setenv("EXPORT_GATEWAY__KEYS__CI__ROLE", "operator")
    options = gateway_options(load_config())
    assert options.keys == (NamedKey("ci", "a-1234", Role.OPERATOR, frozenset({"gio"})),)
    assert options.proxy is not None
    assert options.proxy.roles == {"sre": Role.OPERATOR, "*": Role.VIEWER}
