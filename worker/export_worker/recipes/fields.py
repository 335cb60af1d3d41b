"""Makes the model of a kind from the fields that a recipe declares. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError, create_model

from export_worker.contract.kinds import OtherKind
from export_worker.contract.model import Model
from export_worker.contract.wording import Pattern, plain_message
from export_worker.recipes.model import FieldSpec, KindSpec, Recipe
from export_worker.recipes.names import platform_of

INTEGER_MAX = 2**63 - 1
"""Every JSON parser of a platform reads whole numbers up to this one."""
_NO_CONTROL = Pattern(r"^[^\x00-\x1f\x7f]+$", "must not contain control characters, such as line ends")
_SCALARS: Mapping[str, type] = {"integer": int, "number": float}


def kind_models(recipe: Recipe) -> dict[str, type[OtherKind]]:
    """Returns the model of each kind of a recipe, by the name of the kind. The recipe has no `problems`."""
    return {f"{recipe.name}.{name}": _model(recipe.name, name, spec) for name, spec in recipe.kinds.items()}


def _model(recipe: str, name: str, spec: KindSpec) -> type[OtherKind]:
    kind = f"{recipe}.{name}"
    fields = {field: _definition(declared) for field, declared in spec.fields.items()}
    definitions: dict[str, Any] = {"kind": (Literal[kind], kind), **fields}
    model = create_model(
        "".join(part.capitalize() for part in re.split(r"[._]", kind)),
        __base__=OtherKind,
        __module__=__name__,
        __doc__=spec.title,
        **definitions,
    )
    model.platform = platform_of(recipe)
    return model


def options_model(recipe: Recipe) -> type[Model]:
    """Returns the model of the options that a connection of this recipe has."""
    declared: dict[str, Any] = {name: _definition(option) for name, option in recipe.options.items()}
    return create_model("Options", __base__=Model, __module__=__name__, **declared)


def _definition(spec: FieldSpec) -> tuple[Any, Any]:
    """Returns the type of a field, and its default with its description."""
    declared = field_type(spec)
    about: dict[str, Any] = {"description": " ".join(_sentences(spec))}
    if spec.example is not None:
        about["examples"] = [spec.example]
    if spec.is_required:
        return declared, Field(**about)
    return (declared if spec.default is not None else declared | None), Field(default=spec.default, **about)


def field_type(spec: FieldSpec) -> Any:
    """Returns the type of a field's values, or of an option's."""
    match spec.type:
        case "text":
            return _text_type(spec)
        case "list":
            return Annotated[list[_text_type(spec)], Field(min_length=1, max_length=spec.max_items)]  # type: ignore[misc]
        case "boolean":
            return bool
        case "integer" | "number":
            return Annotated[_SCALARS[spec.type], Field(**_bounds(spec))]


def _text_type(spec: FieldSpec) -> Any:
    if spec.choices:
        return Literal[spec.choices]
    rule = _NO_CONTROL if spec.pattern is None else Pattern(whole(spec.pattern), f"must match {spec.pattern}")
    return Annotated[str, StringConstraints(min_length=1, max_length=spec.max_chars), rule]


def whole(pattern: str) -> str:
    """Returns a regular expression that matches only whole texts, also where JSON Schema uses it."""
    is_whole = pattern.startswith("^") and pattern.endswith("$") and "|" not in pattern
    return pattern if is_whole else f"^(?:{pattern})$"


def _bounds(spec: FieldSpec) -> dict[str, Any]:
    bounds = {"ge": spec.minimum, "le": spec.maximum}
    if spec.type == "number":
        return {name: bound for name, bound in bounds.items() if bound is not None} | {"allow_inf_nan": False}
    limits = {"ge": -INTEGER_MAX, "le": INTEGER_MAX}
    return limits | {name: int(bound) for name, bound in bounds.items() if bound is not None}


def _sentences(spec: FieldSpec) -> Iterator[str]:
    if spec.description:
        yield spec.description if spec.description.endswith((".", "\u3002")) else f"{spec.description}."
    if limits := _limits(spec):
        yield f"{limits[0].upper()}{limits[1:]}."
    if spec.is_required:
        yield "Required."
    elif spec.default is not None:
        yield f"Default: {_shown(spec.default)}."
    elif "Default" not in spec.description:
        yield "Default: none."


def _limits(spec: FieldSpec) -> str:
    """Returns the limits of a value as a part of a sentence; an empty text if there are none."""
    of_text = "" if spec.choices else f"at most {spec.max_chars:,} characters"
    match spec.type:
        case "text":
            return of_text
        case "list":
            return f"1 to {spec.max_items:,} texts" + (f", each {of_text}" if of_text else "")
        case _:
            bounds = {"at least": spec.minimum, "at most": spec.maximum}
            return ", ".join(f"{name} {bound:,.15g}" for name, bound in bounds.items() if bound is not None)


def _shown(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case list() | tuple():
            return ", ".join(map(str, value))
        case _:
            return f"`{value}`" if isinstance(value, str) else str(value)


Problem = tuple[tuple[str, ...], str]
"""The path of a value within a recipe, and what is wrong with it."""


def problems(recipe: Recipe) -> Iterator[Problem]:
    """Yields what is wrong with the fields of kinds and with the options: names, patterns, examples and defaults."""
    for kind, spec in recipe.kinds.items():
        for name, field in spec.fields.items():
            path = ("kinds", kind, "fields", name)
            yield from _reserved(path, name)
            yield from _problems_of(path, field)
    for name, option in recipe.options.items():
        yield from _reserved(("options", name), name)
        yield from _problems_of(("options", name), option)


def _reserved(path: tuple[str, ...], name: str) -> Iterator[Problem]:
    if hasattr(OtherKind, name) or name in {"kind", "platform"} or name.startswith("model_"):
        yield path, f"the name {name} is reserved; choose another name"


_ONLY_FOR: Mapping[str, tuple[str, ...]] = {
    "pattern": ("text", "list"),
    "max_chars": ("text", "list"),
    "choices": ("text", "list"),
    "minimum": ("integer", "number"),
    "maximum": ("integer", "number"),
    "max_items": ("list",),
}
"""The types of fields that a member is for."""


def _problems_of(path: tuple[str, ...], spec: FieldSpec) -> Iterator[Problem]:
    found = list(_problems_of_type(spec))
    yield from (((*path, member), message) for member, message in found)
    if found:
        return
    adapter = TypeAdapter(field_type(spec))
    for member, value in (("default", spec.default), ("example", spec.example)):
        if value is not None:
            yield from (((*path, member), message) for message in _refusals(adapter, value))


def _problems_of_type(spec: FieldSpec) -> Iterator[tuple[str, str]]:
    """Yields the members with which a field would have no type, or another one than it says."""
    for member, types in _ONLY_FOR.items():
        if member in spec.model_fields_set and spec.type not in types:
            yield member, f"is for fields of type {' or '.join(types)}, not {spec.type}"
    try:
        # Flags such as (?i) are possible at the beginning only, and the whole text has to match.
        re.compile(spec.pattern or "")
        re.compile(whole(spec.pattern or ""))
    except re.error as error:
        yield "pattern", f"is no regular expression: {error}"
    for member, bound in (("minimum", spec.minimum), ("maximum", spec.maximum)):
        if spec.type == "integer" and bound is not None and not (bound.is_integer() and abs(bound) <= INTEGER_MAX):
            yield member, f"must be a whole number from -{INTEGER_MAX} to {INTEGER_MAX}"
    if spec.minimum is not None and spec.maximum is not None and spec.minimum > spec.maximum:
        yield "maximum", "must be at least minimum"
    if "" in spec.choices:
        yield "choices", "must not have an empty text"


def _refusals(adapter: TypeAdapter[Any], value: Any) -> Iterator[str]:
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        yield from (plain_message(detail, table="a table") for detail in error.errors())
