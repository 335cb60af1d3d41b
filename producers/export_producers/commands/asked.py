"""Formats what an export asks for: the request in its status. Pure."""

from collections.abc import Iterator
from typing import Any

from export_producers.choices import Language
from export_producers.languages import texts
from export_worker.contract.printable import clean, dumps
from export_worker.contract.status import Status

_SUBJECT_ENDS = ("_id", "_key", "_name")
"""The ends of the fields that name what is exported, such as `segment_id`."""
_NO_SUBJECT = {"project_id", "file_name"}
_DEFAULTS = {"compression": "none"}
"""Values that a request has although its caller did not set them."""


def subject(status: Status, language: Language = "en") -> str:
    """Returns what is exported, such as `segment qgQMXnD3`. Empty if the worker that wrote the status is older."""
    fields = _section(status, "export")
    names = [name for name in fields if name.endswith(_SUBJECT_ENDS) and name not in _NO_SUBJECT]
    return clean(", ".join(f"{_named(name, language)} {_text(fields[name])}" for name in names))


def _named(field: str, language: Language) -> str:
    """Returns what a field names, such as `segment` for `segment_id`."""
    name = field.rpartition("_")[0]
    return texts(language).get(f"subject.{name}", name)


def asked(status: Status) -> Iterator[tuple[str, str]]:
    """Yields name and text of each part of the request that the other fields of a status do not have."""
    request = status.request or {}
    export = {name: value for name, value in _section(status, "export").items() if name != "kind"}
    if export:
        yield "asks for", _listed(export)
    output = {name: value for name, value in _section(status, "output").items() if value != _DEFAULTS.get(name)}
    if output:
        yield "output", _listed(output)
    for field, name in (("idempotency_key", "key"), ("notify", "sinks")):
        if field in request:
            yield name, clean(_text(request[field]))
    if "deadline_s" in request:
        yield "deadline", clean(f"{_text(request['deadline_s'])} s")


def _section(status: Status, name: str) -> dict[str, Any]:
    found = (status.request or {}).get(name)
    return found if isinstance(found, dict) else {}


def _listed(fields: dict[str, Any]) -> str:
    return clean(", ".join(f"{name} = {_text(value)}" for name, value in fields.items()))


def _text(value: Any) -> str:
    """Returns a value as text. A list has its items without brackets: `a, b`."""
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else dumps(value)
