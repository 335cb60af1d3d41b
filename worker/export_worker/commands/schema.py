"""`export-worker schema`: prints a document that describes the configuration or an interface."""

import click

from export_worker.schemas.documents import text_of


def schema(document: str) -> None:
    """Prints one document."""
    click.echo(text_of(document))
