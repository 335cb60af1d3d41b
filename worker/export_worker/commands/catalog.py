"""`export-worker catalog`: lists what a platform can export."""

from typing import Any

import click
from rich.table import Table
from rich.text import Text

from export_producers.commands import interrupts, rendering
from export_worker.config import load_config
from export_worker.contract.printable import clean, dumps
from export_worker.telemetry.logs import configure_logging
from export_worker.wiring.catalog import list_resource
from export_worker.wiring.secrets import build_redactor


def catalog(connection: str, resource: str, *, project: str | None, as_json: bool) -> None:
    """See `declarations.catalog`."""
    config = load_config()
    redactor = build_redactor(config)
    configure_logging(redactor, "ERROR")
    items = interrupts.run(list_resource(config, redactor, connection, resource, project))
    if as_json:
        click.echo(dumps(items))
    elif items:
        rendering.console().print(_table(items))
    else:
        click.echo(f"no {resource}")


def _table(items: list[dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(name for item in items for name in item))
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        grid.add_column(Text(clean(name)), overflow="fold")
    for item in items:
        grid.add_row(*(Text(_cell(item.get(name))) for name in columns))
    return grid


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return clean(value if isinstance(value, str) else dumps(value))
