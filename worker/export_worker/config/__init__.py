"""The configuration: one TOML file, every value of which the environment can override.

One file a section. Lower floors never see it; they take values in their constructors.
"""

from export_worker.config.whole import Config, load_config

__all__ = ["Config", "load_config"]
