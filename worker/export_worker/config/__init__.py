"""The configuration: one TOML file, every value of which the environment can override (DESIGN 1.2).

One file a section. Lower floors never see it; they take values in their constructors.
"""

from export_worker.config.whole import Config, load_config

__all__ = ["Config", "load_config"]
