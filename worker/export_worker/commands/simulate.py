"""`export-worker simulate`: the platform simulator, until Ctrl-C."""

import asyncio

import click

from export_worker.simulator.server import serve


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8099, show_default=True, help="0 takes a free one.")
def simulate(host: str, port: int) -> None:
    """Play the platforms: jobs that take their time, files to download, faults on request."""
    asyncio.run(serve(host, port))
