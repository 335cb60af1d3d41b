"""W3C trace context: connects an export with the request of the service that caused the export."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import StringConstraints, ValidationError

from export_worker.contract.model import Model

TRACEPARENT = r"^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z"
"""Version, trace id, parent id, flags. An id of zeros only and version ff are invalid (W3C Trace Context, 3.2.2)."""
TRACESTATE = r"^[\x20-\x7e]*\Z"
"""Printable ASCII (W3C Trace Context, 3.3.1.3)."""
TRACESTATE_MAX = 512
"""Characters that every service must propagate (W3C Trace Context, 3.3.1.5)."""

# The default regex engine of pydantic has no look-ahead.
_CONFIG = Model.model_config | {"regex_engine": "python-re"}


class TraceContext(Model):
    """The trace context of a request.

    The record stores it as JSON in the field `trace`. The completion event has the `traceparent` as an extension.
    """

    model_config = _CONFIG

    traceparent: Annotated[str, StringConstraints(pattern=TRACEPARENT)]
    tracestate: Annotated[str, StringConstraints(max_length=TRACESTATE_MAX, pattern=TRACESTATE)] | None = None

    @classmethod
    def of(cls, carrier: Mapping[str, Any]) -> Self | None:
        """Reads the context of a carrier, such as the headers of a request.

        An invalid tracestate is left out, and the rest is kept. A service that cannot read a context must continue
        without one (W3C Trace Context, 4.3), so this method raises no error.

        Returns:
            The context, or None if the carrier has none, or an invalid one.
        """
        for state in (carrier.get("tracestate") or None, None):
            try:
                return cls.model_validate({"traceparent": carrier.get("traceparent"), "tracestate": state})
            except ValidationError:
                continue
        return None

    @classmethod
    def read(cls, stored: bytes) -> Self | None:
        """Reads the context of a record; None if it cannot be read, so that the export continues without one."""
        try:
            return cls.model_validate_json(stored)
        except ValidationError:
            return None

    @property
    def trace_id(self) -> str:
        """The id of the trace: 32 hex digits."""
        return self.traceparent.split("-")[1]
