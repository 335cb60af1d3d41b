"""The configuration as people see it: every setting with its effective value, and no secret."""

import json
from pathlib import Path

import pytest

from export_worker.config import Config, load_config
from export_worker.wiring.secrets import build_redactor
from export_worker.wiring.shown_settings import shown_settings
from support import secret_canaries

FILE = f"""
redis_url = "redis://worker:{secret_canaries.TOKEN}@127.0.0.1:6379/3"
[s3]
bucket = "my-exports"
[connections.gio]
platform = "growingio"
base_url = "https://op.example.cn"
token = "{secret_canaries.TOKEN}"
auth_scheme = "Bearer"
[connections.gio.s3]
prefix = "of-gio"
[connections.misspelt]
platform = "growingio"
base_url = "https://op.example.cn"
tokn = "{secret_canaries.OAUTH_SECRET}"
[connections.of-another-package]
platform = "unknown"
base_url = "https://op.example.cn"
password = "{secret_canaries.OAUTH_SECRET}"
client_secret = "env:OAUTH_SECRET"
[sinks.hook]
type = "webhook"
url = "https://hooks.example/{secret_canaries.TOKEN}"
secret = "whsec_{secret_canaries.AWS_ACCESS_KEY}AAAAAAAAAAAAAAAA"
[triggers.orders]
type = "broker"
broker = "rabbitmq"
url = "amqp://user:{secret_canaries.OAUTH_SECRET.replace("/", "%2F")}@mq.example"
source = "orders"
request = {{ note = "{secret_canaries.TOKEN}" }}
[gateway]
api_keys = ["{secret_canaries.GATEWAY_KEY}"]
[gateway.keys.oncall]
key = "{secret_canaries.GATEWAY_KEY}-2"
role = "admin"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("OAUTH_SECRET", secret_canaries.OAUTH_SECRET)
    monkeypatch.setenv("EXPORT_WORKER__TRANSFERS", "9")
    file = tmp_path / "export-worker.toml"
    file.write_text(FILE, encoding="utf-8")
    return load_config(str(file))


def test_every_setting_is_shown_and_no_secret(config: Config) -> None:
    shown = shown_settings(config, build_redactor(config))
    secret_canaries.check("the configuration", json.dumps(shown, ensure_ascii=False).encode())
    assert set(shown) == set(Config.model_fields)
    assert shown["redis_url"] == "redis://***@127.0.0.1:6379/3"
    assert (shown["s3"]["bucket"], shown["worker"]["transfers"]) == ("my-exports", 9)
    gio = shown["connections"]["gio"]
    assert (gio["token"], gio["auth_scheme"], gio["s3"]["prefix"]) == ("***", "Bearer", "of-gio")
    assert gio["poll"]["first_s"] == 2.0
    assert shown["connections"]["misspelt"]["tokn"] == "***"
    assert shown["connections"]["of-another-package"]["password"] == "***"
    assert shown["sinks"]["hook"]["url"] == "***"
    assert shown["gateway"]["keys"]["oncall"] == {"key": "***", "role": "admin", "connections": None}


@pytest.mark.parametrize("password", ["a@canary", "canary@b", "@canary@"])
def test_password_with_the_sign_before_the_host_is_masked_as_a_whole(tmp_path: Path, password: str) -> None:
    file = tmp_path / "export-worker.toml"
    file.write_text(f'redis_url = "redis://worker:{password}@127.0.0.1:6379/3"', encoding="utf-8")
    config = load_config(str(file))
    assert shown_settings(config, build_redactor(config))["redis_url"] == "redis://***@127.0.0.1:6379/3"
