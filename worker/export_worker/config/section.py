"""The base class of every section of the configuration."""

from pydantic import ConfigDict

from export_worker.contract.documented import Documented


class Section(Documented):
    """A section. It is immutable, and refuses unknown settings, infinity and NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
