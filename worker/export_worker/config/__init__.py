"""Settings models, and how they are loaded: from one TOML file and from the environment, which overrides it.

There is one module for each section. The rooms below this one do not import it: they receive values as arguments.
"""

from export_worker.config.config import DEFAULT_FILE, Config, ignored_variables, load_config, settings_file

__all__ = ["DEFAULT_FILE", "Config", "ignored_variables", "load_config", "settings_file"]
