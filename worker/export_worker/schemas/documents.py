"""The documents that `export-worker schema` prints, by name."""

from collections.abc import Callable

from pydantic import BaseModel

from export_producers.gateway import openapi
from export_worker.contract.event import Event
from export_worker.contract.printable import dumps
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Status
from export_worker.schemas.asyncapi import asyncapi_document
from export_worker.schemas.reference import reference_page
from export_worker.schemas.settings import DIALECT, Json, settings_schema


def _written(model: type[BaseModel]) -> Json:
    """Returns the schema of what users write."""
    return {"$schema": DIALECT, **model.model_json_schema(mode="validation")}


def _read(model: type[BaseModel]) -> Json:
    """Returns the schema of what export-worker writes."""
    return {"$schema": DIALECT, **model.model_json_schema(mode="serialization")}


DOCUMENTS: dict[str, Callable[[], str]] = {
    "request": lambda: dumps(_written(ExportRequest)),
    "status": lambda: dumps(_read(Status)),
    "event": lambda: dumps(_read(Event)),
    "config": lambda: dumps(settings_schema(), indent=2),
    "openapi": lambda: dumps(openapi.document()),
    "asyncapi": lambda: dumps(asyncapi_document()),
    "reference": lambda: reference_page().removesuffix("\n"),
}
