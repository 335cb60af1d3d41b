"""The reference page: every setting and every field of a request, as Markdown, from their JSON Schemas."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from export_worker.contract.kind_names import source_of
from export_worker.contract.request import ExportRequest
from export_worker.schemas.settings import TomlSchema, choices, settings_schema

Json = dict[str, Any]

TYPES = {"string": "text", "number": "number", "integer": "whole number", "boolean": "true or false"}
HEAD = """# Reference of settings and requests

`make reference` writes this page from the docstrings of the settings and fields. Do not edit it.

{contents}

A table states for each setting its unit, its default and its limits. [OPERATING.md](OPERATING.md) explains how the
settings work together, and [producers/README.md](../producers/README.md) how to request exports.

`export-worker schema config` and `export-worker schema request` print the same as JSON Schema. An editor that
supports TOML schemas completes and checks a configuration whose first line is `#:schema` and the path of the schema.
"""

OF_KINDS = """The `kind` decides the other fields.

A recipe has kinds, too: `export-worker recipe list` names those of the recipes that come with export-worker, and
`export-worker schema request` describes their fields."""


@dataclass(frozen=True, slots=True)
class Section:
    """One heading with its table, and the sections below it."""

    title: str
    about: str
    rows: list[tuple[str, str, str]]
    below: list["Section"] = field(default_factory=list)


def reference_page() -> str:
    """Returns the page."""
    settings, request = settings_schema(), ExportRequest.model_json_schema(schema_generator=TomlSchema)
    found = [*_settings(settings), *_request(request)]
    contents = "\n".join(f"- [{section.title.replace('`', '')}](#{_slug(section.title)})" for section in found)
    return (HEAD.format(contents=contents) + "".join(_text(section, "##") for section in found)).rstrip("\n")


def _text(section: Section, level: str) -> str:
    table = ["| Name | Type | Description |", "|---|---|---|"]
    table += [f"| `{name}` | {kind} | {about} |" for name, kind, about in section.rows]
    parts = [f"{level} {section.title}", section.about, *(["\n".join(table)] if section.rows else [])]
    return "\n" + "\n\n".join(parts) + "\n" + "".join(_text(below, f"{level}#") for below in section.below)


def _slug(title: str) -> str:
    """Returns the anchor of a heading, as GitHub makes it."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in "_- ")
    return kept.replace(" ", "-")


# Settings


def _settings(schema: Json) -> Iterator[Section]:
    """Yields the section of the settings without a section first, then each section of the file."""
    definitions, properties = schema["$defs"], schema["properties"]
    plain = {name: found for name, found in properties.items() if not {"$ref", "patternProperties"} & found.keys()}
    yield Section("Settings outside of sections", "At the top of the file.", list(_rows(plain)))
    for name, found in properties.items():
        if "$ref" in found:
            yield _section(name, found, definitions)
        elif name not in plain:
            yield _named_section(name, found, definitions)


def _section(name: str, schema: Json, definitions: Json) -> Section:
    """Returns a section, with its subsections below it."""
    properties = _definition(schema, definitions)["properties"]
    below = {
        inner: _section(f"{name}.{inner}{'.NAME' if 'patternProperties' in found else ''}", section, definitions)
        for inner, found in properties.items()
        for section in _tables(found, definitions)
    }
    plain = {inner: found for inner, found in properties.items() if inner not in below or "anyOf" in found}
    return Section(f"`[{name}]`", _about(schema), list(_rows(plain)), list(below.values()))


def _tables(setting: Json, definitions: Json) -> list[Json]:
    """Returns the tables that a setting can be, with what is said about them. One that may also be a word has a row."""
    if "anyOf" in setting:
        return [part | _definition(part, definitions) for part in setting["anyOf"] if "$ref" in part]
    parts = [setting] if "$ref" in setting else setting.get("patternProperties", {}).values()
    return [part | setting for part in parts if "$ref" in part]


def _named_section(name: str, schema: Json, definitions: Json) -> Section:
    """Returns a section that is named by the user: what all of its types share, then what each of them adds."""
    (each,) = schema["patternProperties"].values()
    members = [_definition(member, definitions) for member in choices(each)]
    if len(members) == 1:
        return _section(f"{name}.NAME", {"$ref": each["$ref"]} | schema, definitions)
    shared = {
        key: found
        for key, found in members[-1]["properties"].items()
        if key != "type" and all(key in member["properties"] for member in members)
    }
    common = _section(f"{name}.NAME", {"$ref": "shared"} | schema, {"shared": {"properties": shared}} | definitions)
    below = [Section(_kind(member), _about(member), list(_rows(_added(member, shared)))) for member in members]
    return Section(
        common.title, common.about, common.rows, common.below + [section for section in below if section.rows]
    )


def _added(member: Json, shared: Json) -> Json:
    """Returns what a type adds to the shared settings, or describes differently."""
    return {
        key: found
        for key, found in member["properties"].items()
        if key != "type" and found.get("description") != shared.get(key, {}).get("description")
    }


def _kind(member: Json) -> str:
    """Returns the heading of one type: how the file chooses it."""
    properties = member["properties"]
    if "type" in properties:
        return f'`type = "{properties["type"]["const"]}"`'
    return " or ".join(f'`platform = "{name}"`' for name in properties["platform"].get("enum", ["…"]))


# Requests


def _request(schema: Json) -> Iterator[Section]:
    """Yields the fields of a request, then those of each kind, then those of `output`."""
    definitions, properties = schema["$defs"], schema["properties"]
    yield Section("The request", _about(schema), list(_rows(properties)))
    kinds = [_definition(kind, definitions) for kind in properties["export"]["oneOf"]]
    named = {kind["properties"]["kind"]["const"]: kind for kind in kinds}
    below = [
        Section(f"`{name}`", _about(kind), list(_rows(_without_kind(kind))))
        for name, kind in named.items()
        if source_of(name) is None
    ]
    yield Section("The field `export`", OF_KINDS, [], below)
    output = _definition(properties["output"], definitions)
    yield Section("The field `output`", _about(output), list(_rows(output["properties"])))


def _without_kind(kind: Json) -> Json:
    return {name: found for name, found in kind["properties"].items() if name != "kind"}


# Schemas


def _rows(properties: Json) -> Iterator[tuple[str, str, str]]:
    for name, found in properties.items():
        yield name, _type(found), _about(found)


def _about(schema: Json) -> str:
    return " ".join(str(schema.get("description", "")).split()).replace("|", "\\|")


def _definition(schema: Json, definitions: Json) -> Json:
    found: Json = definitions[schema["$ref"].rpartition("/")[2]]
    return found


def _type(schema: Json) -> str:
    """Returns the type of a value in words."""
    if "enum" in schema or "const" in schema:
        return ", ".join(f'`"{value}"`' for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    return "secret" if schema.get("format") == "password" else TYPES.get(schema.get("type", ""), "table")
