"""Kinds of export that other installed packages add: what a platform outside of this one can be asked for.

An entry point of the group `export_worker.kinds` names the kind and leads to its model, a subclass of `OtherKind`.
The model is part of the contract, the driver is not: a producer loads the one without the other, so a package keeps
them in modules of their own.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import ClassVar

from export_worker.contract.model import Model
from export_worker.errors import ConfigError

GROUP = "export_worker.kinds"


class OtherKind(Model):
    """Base of every kind that is not our own.

    A subclass says its `platform`, narrows `kind` to a `Literal` with the same default, and adds its fields.
    """

    platform: ClassVar[str]
    """As connections name it."""
    kind: str


@cache
def other_kinds() -> dict[str, type[OtherKind]]:
    """The models of what is installed, by kind. Looked for once, and not before a request is read or made.

    Raises:
        ConfigError: One of them cannot be loaded, or is not what it should be.
    """
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return {point.name: _model(point) for point in points}


def _model(point: EntryPoint) -> type[OtherKind]:
    try:
        model = point.load()
    except Exception as error:
        raise ConfigError(f"the kind {point.name} ({point.value}) cannot be loaded: {error}") from error
    if not isinstance(model, type) or not issubclass(model, OtherKind):
        raise ConfigError(f"the kind {point.name} ({point.value}) is no subclass of OtherKind")
    if model.model_fields["kind"].default != point.name or not isinstance(getattr(model, "platform", None), str):
        raise ConfigError(f"the kind {point.name} ({point.value}) must have kind = {point.name!r} and a platform")
    return model
