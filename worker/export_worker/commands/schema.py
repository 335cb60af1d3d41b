"""`export-worker schema`: prints the JSON Schema of a document, or a document that is made from the schemas."""

import click

from export_worker.schemas.documents import DOCUMENTS


def schema(document: str) -> None:
    """Prints one document."""
    click.echo(DOCUMENTS[document]())
