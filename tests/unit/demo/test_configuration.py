"""The configuration that the demo writes for its workers."""

from pathlib import Path

import pytest

from export_worker.config import Config, load_config
from export_worker.demo.requests import CONNECTIONS
from export_worker.demo.services import CREDENTIALS, configuration
from export_worker.demo.showcase import OUTAGE, SECRETS, SLOW, TRIGGER, start_showcase

WAIT_MAX_S = 1.0
"""During a longer wait the demo looks frozen."""


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Config:
    for name in CREDENTIALS:
        monkeypatch.setenv(name, "some-token")
    file = tmp_path / "export-worker.toml"
    text = configuration("redis://127.0.0.1:1/0", "http://127.0.0.1:2", "http://127.0.0.1:3", 4)
    file.write_text(text, encoding="utf-8")
    return load_config(str(file))


def test_every_wait_of_the_demo_is_short(config: Config) -> None:
    waits = [
        config.retry.max_s,
        config.worker.breaker_max_s,
        *(each.poll.max_s for each in config.connections.values()),
    ]
    assert [wait for wait in waits if wait > WAIT_MAX_S] == []


def test_demo_configures_a_connection_of_every_platform(config: Config) -> None:
    assert set(config.connections) == set(CONNECTIONS)


async def test_configuration_of_a_served_demo_has_a_connection_in_each_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (CREDENTIALS | SECRETS).items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "export-worker.toml"
    async with start_showcase() as sections:
        text = configuration("redis://127.0.0.1:1/0", "http://127.0.0.1:2", "http://127.0.0.1:3", 4) + sections
        file.write_text(text, encoding="utf-8")
        config = load_config(str(file))
    assert {*config.connections} == {*CONNECTIONS, SLOW, OUTAGE}
    assert config.connections[SLOW].max_in_flight == 1
    assert ({*config.sinks}, {*config.triggers}) == ({"stream", "crm"}, {TRIGGER})
