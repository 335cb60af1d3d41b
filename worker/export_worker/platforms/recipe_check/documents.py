"""Makes documents in which a JMESPath expression finds a given value. Pure.

This is possible for expressions that only follow names, indexes and projections. For others, the recipe gives samples.
"""

from typing import Any

import jmespath
from jmespath.visitor import TreeInterpreter


class NotInvertibleError(ValueError):
    """No document can be made for the expression."""


def with_value(source: str, value: Any, document: Any = None) -> Any:
    """Returns a document in which an expression finds a value, and everything that another document has.

    Raises:
        NotInvertibleError: The expression computes its value, or contradicts the document.
    """
    made = _with(jmespath.compile(source).parsed, value, document)
    if jmespath.search(source, made) != value:
        raise NotInvertibleError(source)
    return made


def satisfying(source: str, document: Any = None) -> Any:
    """Returns a document for which a condition holds. Raises NotInvertibleError."""
    made = _satisfying(jmespath.compile(source).parsed, document)
    if not jmespath.search(source, made):
        raise NotInvertibleError(source)
    return made


def _with(node: dict[str, Any], value: Any, document: Any) -> Any:
    children = node["children"]
    match node["type"]:
        case "identity" | "current" | "field" | "index":
            return _member(node, value, document)
        case "subexpression" | "index_expression" | "pipe":
            first, *rest = children
            inner = {**node, "children": rest} if len(rest) > 1 else rest[0]
            return _with(first, _with(inner, value, _found(first, document)), document)
        case "flatten" | "or_expression":
            return _with(children[0], value, document)
        case "projection" if isinstance(value, list):
            return _with(children[0], [_with(children[1], item, None) for item in value], document)
        case _:
            raise NotInvertibleError(node["type"])


def _member(node: dict[str, Any], value: Any, document: Any) -> Any:
    match node["type"]:
        case "field":
            return {**(document if isinstance(document, dict) else {}), node["value"]: value}
        case "index":
            items = document if isinstance(document, list) else []
            return [*items, value] if node["value"] in {-1, len(items)} else [value, *items[1:]]
        case _:
            return value


def _found(node: dict[str, Any], document: Any) -> Any:
    return None if document is None else TreeInterpreter().visit(node, document)


def _satisfying(node: dict[str, Any], document: Any) -> Any:
    children = node["children"]
    match node["type"]:
        case "comparator" if node["value"] == "eq":
            path, literal = sorted(children, key=lambda child: child["type"] == "literal")
            return _with(path, literal.get("value"), document)
        case "and_expression":
            return _satisfying(children[1], _satisfying(children[0], document))
        case "or_expression":
            return _satisfying(children[0], document)
        case "not_expression" | "comparator":
            return {} if document is None else document
        case _:
            return _with(node, True, document)
