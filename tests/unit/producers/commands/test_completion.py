"""Completion reads the settings file as the commands read it."""

from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from export_producers.commands import completion
from export_worker.cli import cli

NO_CONTEXT = click.Context(click.Command("list"))
NO_PARAMETER = click.Option(["--connection"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_names_are_read_in_every_encoding_of_the_settings_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes("[connections.gio]  # \u540d\n".encode(encoding))
    monkeypatch.setenv("EXPORT_CONFIG", str(file))
    assert completion.connections(NO_CONTEXT, NO_PARAMETER, "g") == ["gio"]


def test_settings_file_that_cannot_be_parsed_offers_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f"a = {'[' * 5_000}")
    monkeypatch.setenv("EXPORT_CONFIG", str(file))
    assert completion.triggers(NO_CONTEXT, NO_PARAMETER, "") == []


@pytest.mark.parametrize(
    ("platform", "incomplete", "offered"),
    [
        ("growingio", "proj", ["projects"]),
        ("growingio-rest", "export_j", ["export_jobs"]),
        ("thinkingdata", "no-such", []),
        ("sensorsdata", "del", ["delete"]),
        ("platform-of-another-package", "", []),
    ],
)
def test_operations_of_the_platform_of_a_connection_are_offered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, incomplete: str, offered: list[str]
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f'[connections.gio]\nplatform = "{platform}"\n[connections.other]\nplatform = "sensorsdata"\n')
    monkeypatch.setenv("EXPORT_CONFIG", str(file))
    assert offered_operations("gio", incomplete) == offered
    monkeypatch.setenv("EXPORT_CONNECTIONS__GIO__PLATFORM", "sensorsdata")
    assert offered_operations("gio", "del") == ["delete"]


def test_operations_of_a_connection_that_does_not_exist_are_not_offered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("connections = 5\n")
    monkeypatch.setenv("EXPORT_CONFIG", str(file))
    assert offered_operations("gio", "") == []


def offered_operations(connection: str, incomplete: str) -> list[str]:
    """Returns what a shell offers for the operation of `call`."""
    completing = ShellComplete(cli, {}, "export-worker", "_EXPORT_WORKER_COMPLETE")
    return [item.value for item in completing.get_completions(["call", connection], incomplete)]
