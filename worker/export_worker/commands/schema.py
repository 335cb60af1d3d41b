"""`export-worker schema`: prints a document that describes the configuration or an interface."""

import click

from export_worker.config import load_config
from export_worker.contract.printable import clean
from export_worker.errors import ConfigError
from export_worker.schemas.documents import text_of

WITH_KINDS = {"request", "openapi", "asyncapi"}
"""The documents that describe requests. They have the kinds of the recipe files that the configuration names."""


def schema(document: str) -> None:
    """Prints one document."""
    if document in WITH_KINDS:
        try:
            load_config()
        except ConfigError as error:
            click.echo(clean(f"warning: without the kinds of recipe files: {error}"), err=True)
    click.echo(text_of(document))
