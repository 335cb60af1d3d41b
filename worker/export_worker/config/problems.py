"""Says in plain words what is wrong with a configuration. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic_core import ErrorDetails

from export_worker.config.sinks import BrokerName
from export_worker.config.sources import ENV_DELIMITER
from export_worker.contract.names import did_you_mean
from export_worker.contract.schema_paths import Json, property_names, schema_at
from export_worker.contract.wording import plain_message, shown


def setting_problem(detail: ErrorDetails, schema: Json) -> str:
    """Returns one of pydantic's errors as `SETTING: what is wrong or allowed`.

    Args:
        schema: The JSON Schema of the configuration, which has the names of all settings.
    """
    # "[key]" is how pydantic says that the name of a section is wrong.
    path = [part for part in map(str, detail["loc"]) if part != "[key]"]
    tag, choices = detail.get("ctx", {}).get("tag"), _choices(schema, path)
    if path[:1] in (["sinks"], ["triggers"]):
        # pydantic puts the type of the sink or trigger into the path; the file has no such level.
        del path[2:3]
    setting = ".".join(path)
    match detail["type"]:
        case "union_tag_invalid":
            meant = _broker(tag, choices) or did_you_mean(str(tag), choices)
            return f"{setting}.type: must be one of {', '.join(choices)}, not {shown(tag)}{meant}"
        case "union_tag_not_found":
            return f"{setting}.type: is required{_fitting(detail['input'], _members(schema, path))}"
        case "extra_forbidden":
            return f"{setting}: unknown setting; {_advice(path[-1], detail['loc'], schema)}"
        case "missing":
            return f"{setting}: is required{_allowed(schema_at(schema, list(map(str, detail['loc']))))}"
        case "value_error":
            return _of_section(setting, str(detail["ctx"]["error"]), schema_at(schema, list(map(str, detail["loc"]))))
        case _:
            return f"{setting}: {plain_message(detail, table='a section with settings')}"


def _of_section(setting: str, error: str, section: Json) -> str:
    """Returns an error of a validator. That of a section names the setting itself, that of a setting does not."""
    names_setting = re.split(r"[ .]", error, maxsplit=1)[0] in property_names(section)
    separator = "." if names_setting else ": "
    return f"{setting}{separator}{error}" if setting else error


def _broker(tag: Any, choices: Sequence[str]) -> str:
    """Returns how a sink or trigger of a message broker is written, if its type names the broker."""
    is_broker = tag in get_args(BrokerName) and "broker" in choices
    return f'; write type = "broker" and broker = "{tag}"' if is_broker else ""


def _fitting(section: Any, members: Mapping[str, Sequence[str]]) -> str:
    """Returns the types that a section without a type can have, and the settings that show it.

    Args:
        members: The names of the settings of each type.
    """
    given = [name for name in section if any(name in names for names in members.values())]
    counts = {member: sum(name in names for name in given) for member, names in members.items()}
    fitting = [member for member, count in counts.items() if count == max(counts.values())]
    deciding = [name for name in given if any(name not in names for names in members.values())]
    why = f" with {', '.join(deciding)}" if len(fitting) < len(members) else ""
    return f"{why}; {'one of' if len(fitting) > 1 else 'it must be'} {', '.join(fitting)}"


def _allowed(setting: Json) -> str:
    """Returns the values of a setting that is missing, if its schema lists them."""
    values, examples = setting.get("enum", ()), setting.get("examples", ())
    return f"; one of {', '.join(values)}" if values else f"; such as {', '.join(examples)}" if examples else ""


def _advice(name: str, location: Sequence[Any], schema: Json) -> str:
    """Returns which setting was probably meant by an unknown one."""
    places, members = _places(schema), _members(schema, list(map(str, location[:-2])))
    if fitting := [member for member, names in members.items() if name in names]:
        return f"the types {', '.join(fitting)} have it" if len(fitting) > 1 else f"the type {fitting[0]} has it"
    if name in places:
        return f"it belongs {places[name]}"
    known = property_names(schema_at(schema, list(map(str, location[:-1]))))
    return did_you_mean(name, known).removeprefix("; ") or "export-worker schema config lists all settings"


def _places(schema: Json) -> dict[str, str]:
    """Returns where the settings belong that only one section has, or the top of the file."""
    sections = {name: property_names(schema_at(schema, [name])) for name in property_names(schema)}
    inner = {name: f"into [{section}]" for section, names in sections.items() for name in names}
    return inner | dict.fromkeys(sections, "to the top of the file, before the first section")


def _choices(schema: Json, path: Sequence[str]) -> list[str]:
    return list(schema_at(schema, path).get("discriminator", {}).get("mapping", {}))


def _members(schema: Json, path: Sequence[str]) -> dict[str, list[str]]:
    """Returns the names of the settings of each type that the section may have."""
    return {choice: property_names(schema_at(schema, [*path, choice])) for choice in _choices(schema, path)}


def variable_names(schema: Json) -> list[str]:
    """Returns the variables of settings without their prefix, apart from those in sections with a name of the user."""
    sections = {name: property_names(schema_at(schema, [name])) for name in property_names(schema)}
    paths = [(section, *inner) for section, names in sections.items() for inner in [(), *((name,) for name in names)]]
    return [ENV_DELIMITER.join(path).upper() for path in paths]


def not_json(variables: Iterable[str]) -> list[str]:
    """Returns the problems of variables that must be JSON, and are not."""
    allowed = 'must be JSON: ["a", "b"] for a list, {"name": "value"} for a section'
    return [f"{name}: {allowed}" for name in variables]
