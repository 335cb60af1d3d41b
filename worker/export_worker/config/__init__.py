"""The configuration: one TOML file, every value of which the environment can override.

One file a section. Lower floors never see it; they take values in their constructors.
"""

from export_worker.config.config import DEFAULT_FILE, Config, ignored_variables, load_config, settings_file

__all__ = ["DEFAULT_FILE", "Config", "ignored_variables", "load_config", "settings_file"]
