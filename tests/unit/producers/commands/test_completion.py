"""Completion reads the settings file as the commands read it."""

from pathlib import Path

import click
import pytest

from export_producers.commands import completion

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
