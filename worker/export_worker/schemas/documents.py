"""The documents that `export-worker schema` prints, by name."""

from pydantic import BaseModel

from export_producers.gateway.documents import openapi
from export_worker.contract.event import Event
from export_worker.contract.printable import dumps
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Status
from export_worker.schemas.asyncapi import asyncapi_document
from export_worker.schemas.reference import reference_page
from export_worker.schemas.settings import DIALECT, Json, settings_schema

READ: dict[str, type[BaseModel]] = {"status": Status, "event": Event}
"""The documents that export-worker writes; users write the others."""


def text_of(name: str) -> str:
    """Returns the text of a document: JSON, or Markdown for the reference."""
    if name == "reference":
        return reference_page()
    # The schema of the configuration is kept in a file, where each difference should be one line.
    return dumps(_document(name), indent=2 if name == "config" else None)


def _document(name: str) -> Json:
    match name:
        case "request":
            return {"$schema": DIALECT, **ExportRequest.model_json_schema(mode="validation")}
        case "config":
            return settings_schema()
        case "openapi":
            return openapi.document()
        case "asyncapi":
            return asyncapi_document()
        case _:
            return {"$schema": DIALECT, **READ[name].model_json_schema(mode="serialization")}
