"""The JSON Schema of the configuration file, with the options of every installed platform."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from export_worker.config import Config
from export_worker.platforms.registry import settings_models
from export_worker.platforms.settings import ConnectionSettings

Json = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class TomlSchema(GenerateJsonSchema):
    """Describes a TOML file, as an editor shows it: TOML has no null, and a title would only repeat the name."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Returns the schema of the value. A setting without a value is left out of the file."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Returns the schema with its default, unless the default is a section or no value."""
        found = super().default_schema(schema)
        if found.get("default") is None or isinstance(found["default"], dict):
            found.pop("default", None)
        return found

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Returns the schema of a table. Names that do not match the pattern of its names are refused."""
        found = super().dict_schema(schema)
        return found | {"additionalProperties": False} if "patternProperties" in found else found

    def field_title_should_be_set(self, schema: object) -> bool:
        """Returns False: fields get no title."""
        del schema
        return False


def settings_schema() -> Json:
    """Returns the schema of the configuration file."""
    platforms = settings_models()
    models: tuple[type[BaseModel], ...] = (Config, ConnectionSettings, *platforms.values())
    references, found = models_json_schema([(model, "validation") for model in models], schema_generator=TomlSchema)
    definitions: dict[str, Json] = found["$defs"]
    names = {model: _name(references[model, "validation"]) for model in models}
    root = definitions.pop(names[Config])
    sections: dict[str, Json] = root["properties"]
    for name in ("sinks", "triggers"):
        ((pattern, union),) = sections[name]["patternProperties"].items()
        types = {definitions[_name(part)]["properties"]["type"]["const"]: _name(part) for part in union["oneOf"]}
        sections[name]["patternProperties"] = {pattern: _choice("type", types, definitions)}
    own = {platform: names[model] for platform, model in platforms.items()}
    for platform, name in own.items():
        definitions[name]["properties"]["platform"].setdefault("enum", []).append(platform)
    (pattern,) = sections["connections"]["patternProperties"]
    connection = _choice("platform", own, definitions, other=names[ConnectionSettings])
    sections["connections"]["patternProperties"] = {pattern: connection}
    return {"$schema": DIALECT} | root | {"title": "export-worker", "$defs": definitions}


def choices(schema: Json) -> list[Json]:
    """Returns the schemas between which a setting chooses, in a schema that `_choice` has made, or its only one."""
    return [part for part in schema.get("anyOf", [schema]) if "$ref" in part]


def _choice(key: str, names: dict[str, str], definitions: dict[str, Json], *, other: str | None = None) -> Json:
    """Returns the schema of a section whose setting `key` decides which other settings it has.

    An editor completes the settings of `anyOf`, which accepts every section. A mistake is found by the rules of
    `allOf`: the one whose `if` applies names the wrong setting, and not only the section.

    Args:
        names: The name of the definition for each value of the setting.
        other: The definition for all other values. Without it, they are refused.
    """
    rules = [{"if": _is(value, key, definitions[name]), "then": _ref(name)} for value, name in names.items()]
    known: Json = {"properties": {key: {"enum": list(names)}}}
    if other is not None:
        rules.append({"if": {"not": known | {"required": [key]}}, "then": _ref(other)})
    else:
        has_default = any(key not in definitions[name].get("required", ()) for name in names.values())
        rules.append(known if has_default else known | {"required": [key]})
    shown = dict.fromkeys([*names.values(), *([other] if other else [])])
    return {"type": "object", "anyOf": [*map(_ref, shown), {"type": "object"}], "allOf": rules}


def _is(value: str, key: str, definition: Json) -> Json:
    """Returns a condition: the setting has this value, or is missing where the value is the default."""
    required = {"required": [key]} if key in definition.get("required", ()) else {}
    return {"properties": {key: {"const": value}}} | required


def _ref(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}


def _name(reference: Json) -> str:
    return str(reference["$ref"]).removeprefix("#/$defs/")
