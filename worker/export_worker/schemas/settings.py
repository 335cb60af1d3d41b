"""The JSON Schema of the configuration file, with the options of every installed platform."""

from collections import defaultdict
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
    connection = {"oneOf": _alternatives(platforms, names, definitions)}
    connections: Json = root["properties"]["connections"]
    connections["patternProperties"] = dict.fromkeys(list(connections["patternProperties"]), connection)
    return {"$schema": DIALECT} | root | {"title": "export-worker", "$defs": definitions}


def _alternatives(
    platforms: dict[str, type[ConnectionSettings]], names: dict[type[BaseModel], str], definitions: dict[str, Json]
) -> list[Json]:
    """Returns one schema for each platform, and one for the platforms that are not installed here."""
    platforms_of = defaultdict(list)
    for platform, model in platforms.items():
        platforms_of[names[model]].append(platform)
    for name, own in platforms_of.items():
        definitions[name]["properties"]["platform"]["enum"] = own
    other = names[ConnectionSettings]
    definitions[other]["properties"]["platform"]["not"] = {"enum": list(platforms)}
    return [{"$ref": f"#/$defs/{name}"} for name in (*platforms_of, other)]


def _name(reference: Json) -> str:
    return str(reference["$ref"]).removeprefix("#/$defs/")
