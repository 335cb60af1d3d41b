"""Settings models, and how they are loaded: from one TOML file and from the environment, which overrides it.

Most sections have a module here. The rooms on lower floors do not import this one: they receive values as arguments.
"""

from export_worker.config.config import (
    Config,
    ignored_variables,
    load_config,
    located_errors,
    settings_file,
    similar_variable,
)
from export_worker.contract.settings_file import DEFAULT_FILE

__all__ = [
    "DEFAULT_FILE",
    "Config",
    "ignored_variables",
    "load_config",
    "located_errors",
    "settings_file",
    "similar_variable",
]
