"""Shows the effective configuration to people, with `***` in the place of every secret."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, SecretStr

from export_worker.config import Config
from export_worker.credentials import MASK, Redactor
from export_worker.errors import ConfigError
from export_worker.platforms.registry import settings_models
from export_worker.platforms.settings import ConnectionSettings, platform_settings

_USER = re.compile(r"(?<=://)[^/\s]*@")  # a password may have an @ of its own
_QUERY = re.compile(r"\?.*", re.DOTALL)


def shown_settings(config: Config, redactor: Redactor) -> dict[str, Any]:
    """Returns every setting with its effective value.

    Args:
        redactor: Masks secrets that are also in settings that are no secrets.
    """
    models = settings_models()
    connections = {name: _connection(name, each, models) for name, each in config.connections.items()}
    shown: dict[str, Any] = redactor.value(_shown(config) | {"connections": connections})
    return shown


def _connection(
    name: str, settings: ConnectionSettings, models: Mapping[str, type[ConnectionSettings]]
) -> dict[str, Any]:
    """Returns the settings of a connection. An option that its platform does not know may be a misspelt secret."""
    model = models.get(settings.platform)
    try:
        if model is not None:
            return _fields(platform_settings(name, settings, model))
    except ConfigError:
        pass
    return _fields(settings) | dict.fromkeys(settings.model_extra or {}, MASK)


def _fields(section: BaseModel) -> dict[str, Any]:
    return {name: _shown(getattr(section, name)) for name in type(section).model_fields}


def _shown(value: Any) -> Any:
    match value:
        case SecretStr():
            return MASK
        case BaseModel():
            return _fields(value)
        case Mapping():
            return {str(name): _shown(each) for name, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_shown(each) for each in value]
        case _:
            return value if value is None or isinstance(value, bool | int | float) else _text(str(value))


def _text(text: str) -> str:
    """Returns a text without the parts of an address that may be credentials."""
    return _QUERY.sub(f"?{MASK}", _USER.sub(f"{MASK}@", text)) if "://" in text else text
