"""The sections `gateway.queues.NAME`: several queues behind one gateway."""

from pathlib import Path

import pytest

from export_worker.config import Config, load_config
from export_worker.errors import ConfigError
from export_worker.wiring.gateway import gateway_options
from export_worker.wiring.queue import build_queues, redis_urls
from export_worker.wiring.secrets import build_redactor
from export_worker.wiring.shown_settings import shown_settings

NORTH = 'redis_url = "redis://:pa55word-of-north@north/0"'
SOUTH = 'redis_url = "redis://south/0"'


def loaded(tmp_path: Path, north: str, south: str, more: str = "") -> Config:
    """Returns the configuration of a gateway with two queues."""
    file = tmp_path / "export-worker.toml"
    file.write_text(f"[gateway.queues.north]\n{north}\n[gateway.queues.south]\n{south}\n{more}", encoding="utf-8")
    return load_config(str(file))


async def test_gateway_has_the_queues_of_its_sections_in_their_order(tmp_path: Path) -> None:
    config = loaded(tmp_path, NORTH, f'{SOUTH}\nnamespace = "second"\nconnections = ["gio"]')
    assert redis_urls(config) == ["redis://:pa55word-of-north@north/0", "redis://south/0"]
    async with build_queues(config) as queues:
        found = {name: queue.storage.keys.namespace for name, queue in queues.by_name.items()}
    assert found == {"north": "exports", "south": "second"}
    assert gateway_options(config).host == "127.0.0.1"


async def test_gateway_without_sections_has_the_queue_of_the_configuration() -> None:
    async with build_queues(Config()) as queues:
        (queue,) = queues.by_name.values()
        assert (queue.storage.keys.namespace, redis_urls(Config())) == ("exports", [Config().redis_url])


def test_password_of_a_queue_is_masked(tmp_path: Path) -> None:
    config = loaded(tmp_path, NORTH, SOUTH)
    assert "pa55word" not in build_redactor(config).text("redis://:pa55word-of-north@north")
    assert "pa55word" not in str(shown_settings(config, build_redactor(config)))
    assert "pa55word" not in repr(config)


@pytest.mark.parametrize(
    ("north", "south", "problem"),
    [
        (NORTH, NORTH, "gateway.queues: north and south have the same redis_url and namespace"),
        (
            f'{NORTH}\nconnections = ["gio"]',
            f'{SOUTH}\nconnections = ["gio"]',
            "north and south both state the connection 'gio'",
        ),
        ('namespace = "exports"', SOUTH, "gateway.queues.north.redis_url"),
        ('redis_url = "http://north"', SOUTH, "gateway.queues.north.redis_url: must be redis://"),
        (f'{NORTH}\nnamespace = "a b"', SOUTH, "gateway.queues.north.namespace"),
    ],
)
def test_wrong_queues_are_refused(tmp_path: Path, north: str, south: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, north, south)
    assert problem in str(refused.value)
