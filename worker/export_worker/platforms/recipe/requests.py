"""Builds the calls of a recipe from its templates. Pure: no I/O."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from export_worker.errors import PlatformRefusedError
from export_worker.platforms.http.client import Call
from export_worker.recipes.model import KindSpec, Request
from export_worker.recipes.templates import TemplateError, as_text, filled, template

Document = Mapping[str, Any]
"""The values that templates name."""


def call_of(request: Request, headers: Mapping[str, str], document: Document) -> Call:
    """Returns the call of a request.

    Args:
        headers: Those of the recipe, as templates.

    Raises:
        PlatformRefusedError: A value is missing, or cannot be sent where the recipe puts it.
    """
    try:
        return Call(
            request.method,
            path_of(request.path, document),
            query=query_of(request.query, document),
            headers=headers_of({**headers, **request.headers}, document),
            json=_json_of(request, document),
            form=None if request.form is None else _form_of(request.form, document),
        )
    except TemplateError as error:
        raise PlatformRefusedError(f"{request.method} {request.path}: {error}") from None


def link_request(kind: KindSpec) -> Request:
    """Returns the request for the links of a result, or for its file."""
    result = kind.result
    return Request(method=result.method, path=result.path or "", query=result.query, headers=result.headers)


def path_of(path: str, document: Document) -> str:
    """Returns the path with its values percent-encoded. Raises TemplateError."""
    return template(path).text(document, _segment)


def _segment(text: str) -> str:
    """Returns a value that is a part of one segment of a path, and never leads out of it."""
    encoded = quote(text, safe="")
    if encoded.replace(".", "") == "":
        raise TemplateError("a value in the path must have a character that is no dot")
    return encoded


def query_of(query: Mapping[str, Any], document: Document) -> dict[str, str | list[str]]:
    """Returns the parameters that have a value. Raises TemplateError."""
    values = filled(query, document)
    return {name: [_text(name, item) for item in value] if isinstance(value, list) else _text(name, value)
            for name, value in values.items()}  # fmt: skip


def headers_of(headers: Mapping[str, str], document: Document) -> dict[str, str]:
    """Returns the headers that have a value. Raises TemplateError."""
    texts = {name: _text(name, value) for name, value in filled(headers, document).items()}
    for name, text in texts.items():
        if not text.isascii() or not text.isprintable() or text != text.strip():
            raise TemplateError(f"the header {name} must be printable ASCII without spaces around it")
    return texts


def _form_of(form: Mapping[str, str], document: Document) -> dict[str, str]:
    return {name: _text(name, value) for name, value in filled(form, document).items()}


def _json_of(request: Request, document: Document) -> Any:
    if request.graphql is not None:
        return {"query": request.graphql.query, "variables": filled(request.graphql.variables, document)}
    return None if request.json_body is None else filled(request.json_body, document)


def _text(name: str, value: Any) -> str:
    text = as_text(value)
    if text is None:
        raise TemplateError(f"{name} must be a text, a number or a boolean, not a {type(value).__name__}")
    return text
