"""`export-worker catalog`: what can be exported, as the platform has it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from export_producers.commands import rendering
from export_producers.commands.options import TEXT
from export_producers.gateway.openapi import RESOURCES
from export_worker.config import Config, load_config
from export_worker.contract.printable import clean, dumps
from export_worker.credentials import Redactor
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.platforms.base import Catalog
from export_worker.wiring.connections import open_driver
from export_worker.wiring.secrets import build_redactor


@click.command()
@click.argument("connection", type=TEXT)
@click.argument("resource", type=click.Choice(RESOURCES))
@click.option("--project", type=TEXT, metavar="ID", help="The platform's project, where the resource belongs to one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def catalog(connection: str, resource: str, *, project: str | None, as_json: bool) -> None:
    """List what CONNECTION's platform has of RESOURCE."""
    config = load_config()
    items = asyncio.run(listing(config, build_redactor(config))(connection, resource, project))
    if as_json:
        click.echo(dumps(items))
    elif items:
        rendering.console().print(_table(items))
    else:
        click.echo(f"no {resource}")


def listing(
    config: Config, redactor: Redactor
) -> Callable[[str, str, str | None], Coroutine[Any, Any, list[dict[str, Any]]]]:
    """What lists a resource of a connection, in a project if one is named."""

    async def items(connection: str, resource: str, project: str | None) -> list[dict[str, Any]]:
        async with open_driver(config, connection, redactor) as driver:
            if not isinstance(driver, Catalog) or resource not in driver.resources:
                offered = ", ".join(driver.resources) if isinstance(driver, Catalog) else "nothing"
                platform = config.connections[connection].platform
                raise InvalidRequestError([FieldProblem("resource", f"{platform} lists {offered}")])
            return await driver.catalog(resource, project)

    return items


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
