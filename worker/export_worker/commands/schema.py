"""`export-worker schema`: prints the JSON Schema of a document, or the OpenAPI document."""

from typing import Any

import click
from pydantic import BaseModel

from export_producers.gateway import openapi
from export_worker.config import Config
from export_worker.contract.event import Event
from export_worker.contract.printable import dumps
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Status


def schema(document: str) -> None:
    """Prints one document."""
    if document == "openapi":
        click.echo(dumps(openapi.document()))
        return
    written: dict[str, type[BaseModel]] = {"request": ExportRequest, "config": Config}
    read: dict[str, type[BaseModel]] = {"status": Status, "event": Event}
    if document in written:
        found: dict[str, Any] = written[document].model_json_schema(mode="validation")
    else:
        found = read[document].model_json_schema(mode="serialization")
    click.echo(dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **found}))
