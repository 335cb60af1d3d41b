"""Finds names in the templates of a recipe that stand for nothing. Pure. Needs jmespath."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from export_worker.contract.auth import OAuthAuth, VolcengineSigner
from export_worker.recipes.model import KindSpec, Listing, Recipe, Request
from export_worker.recipes.templates import template, templates_in, unknown_names

_PAGE = frozenset({"cursor", "offset", "page"})
_NO_TEMPLATES = frozenset({"id", "keep", "stage", "done", "failed", "no_data", "percent", "reason"})
"""Members of requests that are plain texts or expressions over an answer."""
_OF_PAGES = frozenset({"items", "next", "next_link", "format", "columns", "source", "method"})

Problem = tuple[tuple[str, ...], str]
"""The address of a value in the file, and what is wrong with it."""


def problems_of(recipe: Recipe) -> list[Problem]:
    """Returns every template that names something that is not known where the template is used.

    The addresses are those of pydantic: `("kinds", "users", "poll", "path")`.
    """
    return list(_problems(recipe))


def _problems(recipe: Recipe) -> Iterator[Problem]:
    options = frozenset(f"options.{name}" for name in recipe.options)
    yield from _of_auth(recipe.auth, options)
    yield from _unknown(("headers",), recipe.headers, options)
    for name, listing in recipe.catalog.items():
        yield from _of_request(("catalog", name), listing, options | _PAGE | {"project"})
    for name, kind in recipe.kinds.items():
        yield from _of_kind(("kinds", name), kind, options)


def _of_auth(auth: BaseModel, options: frozenset[str]) -> Iterator[Problem]:
    """Yields the options that `auth` names and that the recipe does not declare. Its secrets need no declaration."""
    for name, value in auth.model_dump().items():
        if isinstance(value, str) and value.startswith("options."):
            problem = unknown_names(frozenset({value}), options)
            if problem is not None:
                yield ("auth", name), problem
        elif isinstance(auth, OAuthAuth | VolcengineSigner):  # the texts of the others are no templates
            try:
                yield from _unknown(("auth", name), value, options)
            except ValueError as error:
                yield ("auth", name), str(error)


def _of_kind(address: tuple[str, ...], kind: KindSpec, options: frozenset[str]) -> Iterator[Problem]:
    fields = frozenset(kind.fields) | options
    later = fields | {"operation_id"} | {f"keep.{name}" for name in kind.submit.keep}
    yield from _of_request((*address, "submit"), kind.submit, fields)
    for name, request in (("poll", kind.poll), ("cancel", kind.cancel), ("delete", kind.delete)):
        if request is not None:
            yield from _of_request((*address, name), request, later)
    result = kind.result
    here = (*address, "result")
    yield from _unknown(here, {"path": result.path, "query": result.query, "headers": result.headers}, later)
    yield from _unknown(here, {"name": result.name}, later | {"number"})
    if result.pages is not None:
        yield from _of_request((*here, "pages"), result.pages, later | _PAGE)


def _of_request(address: tuple[str, ...], request: Request, known: frozenset[str]) -> Iterator[Problem]:
    members = _dumped(request)
    graphql = members.pop("graphql", None)
    if graphql:
        yield from _unknown((*address, "graphql", "variables"), graphql["variables"], known)
    yield from _unknown(address, members, known)
    if isinstance(request, Listing):
        sent = (members, graphql and graphql["variables"])
        names = {name for tree in sent for text in templates_in(tree) for name in template(text).names}
        if ("cursor" in names and not (request.next or request.next_link)) or (request.next and "cursor" not in names):
            yield address, "{cursor} and next need each other: next finds the cursor, and the request names it"


def _dumped(model: BaseModel) -> dict[str, Any]:
    """Returns the members of a model that have templates, under their names in the file."""
    plain = _NO_TEMPLATES | (_OF_PAGES if isinstance(model, Listing) else frozenset())
    return model.model_dump(by_alias=True, exclude_none=True, exclude=set(plain))


def _unknown(address: tuple[str, ...], tree: Any, known: frozenset[str]) -> Iterator[Problem]:
    if isinstance(tree, Mapping):
        for name, member in tree.items():
            yield from _unknown((*address, str(name)), member, known)
        return
    for text in templates_in(tree):
        problem = unknown_names(template(text).names, known)
        if problem is not None:
            yield address, problem
