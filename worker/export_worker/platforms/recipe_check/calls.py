"""Fills the requests of a kind before they are played: with all fields of its example, and with the required ones."""

from collections.abc import Iterator
from typing import Any

from export_worker.errors import PlatformRefusedError
from export_worker.platforms.recipe.requests import call_of, link_request
from export_worker.platforms.recipe_check.samples import KEPT, export_of, options_of
from export_worker.recipes.model import KindSpec, Recipe, Request
from export_worker.recipes.templates import TemplateError, template


def call_problems(recipe: Recipe, name: str) -> Iterator[str]:
    """Yields what is wrong with the requests of a kind, once for each. Raises ConfigError as `export_of`."""
    kind = recipe.kinds[name]
    of_job = {"operation_id": "1", "keep": dict.fromkeys(kind.submit.keep, KEPT), "cursor": None, "offset": 0}
    seen = set[str]()
    for is_minimal, ending in ((False, ""), (True, ", if the optional fields are missing")):
        export = export_of(recipe, name, is_minimal=is_minimal).model_dump(exclude_none=True)
        document = {**export, **of_job, "page": 1, "number": 1, "options": options_of(recipe)}
        for part, problem in _problems(recipe, kind, document):
            if part not in seen:
                seen.add(part)
                yield f"kinds.{name}.{part}: {problem}{ending}"


def _problems(recipe: Recipe, kind: KindSpec, document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for part, request in _requests(kind):
        try:
            call_of(request, recipe.headers, document)
        except PlatformRefusedError as error:
            yield part, str(error)
    try:
        template(kind.result.name or "").text(document)
    except TemplateError as error:
        yield "result.name", str(error)


def _requests(kind: KindSpec) -> Iterator[tuple[str, Request]]:
    asked = link_request(kind) if kind.result.path is not None else None
    named = {
        "submit": kind.submit,
        "poll": kind.poll,
        "result": asked,
        "result.pages": kind.result.pages,
        "cancel": kind.cancel,
        "delete": kind.delete,
    }
    yield from ((part, request) for part, request in named.items() if request is not None)
