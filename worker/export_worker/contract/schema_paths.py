"""Finds a part of a JSON Schema by the path of a value, so that messages can name what is allowed there. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]


def property_names(schema: Json) -> list[str]:
    """Returns the names of the values that a section can have."""
    return list(schema.get("properties", {}))


def schema_at(schema: Json, path: Sequence[str]) -> Json:
    """Returns the schema of a section; an empty one if it cannot be found.

    Args:
        schema: The schema of the whole document, with `$defs`.
        path: Names of sections, and the tags of discriminated unions as pydantic puts them into locations.
    """
    definitions, found = schema.get("$defs", {}), schema
    for part in path:
        found = _resolved(_member(found, part), definitions)
    return found


def _member(schema: Json, part: str) -> Json:
    tagged = schema.get("discriminator", {}).get("mapping", {}).get(part)
    named = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    members = next((each for each in named if isinstance(each, Mapping)), {})
    if isinstance(tagged, Mapping):  # a union within the union
        return tagged
    found: Json = {"$ref": tagged} if tagged else schema.get("properties", {}).get(part, members)
    return found


def _resolved(schema: Json, definitions: Json) -> Json:
    """Returns a schema without its reference, and without null where it is optional."""
    others = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    if len(others) == 1:
        schema = others[0]
    if "$ref" in schema:
        schema = definitions.get(schema["$ref"].rpartition("/")[2], {})
    return schema
