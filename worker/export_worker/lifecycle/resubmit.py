"""The setting `resubmit` of a connection. The configuration reads it before any kind is known: it imports nothing."""

from typing import Literal

Resubmit = Literal["never", "once", "always"]
"""How often a submit is repeated that the platform may have received."""
