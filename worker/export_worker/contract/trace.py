"""W3C trace context: what ties an export to the request of a service that asked for it."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import StringConstraints, ValidationError

from export_worker.contract.model import Model

TRACEPARENT = r"^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z"
"""Version, trace id, parent id, flags; ids of zeros alone and version ff are invalid (W3C Trace Context, 3.2.2)."""
TRACESTATE = r"^[\x20-\x7e]*\Z"
"""Printable ASCII (W3C Trace Context, 3.3.1.3)."""
TRACESTATE_MAX = 512
"""Characters that everyone must pass on (W3C Trace Context, 3.3.1.5)."""

# pydantic's own engine has no look-ahead.
_CONFIG = Model.model_config | {"regex_engine": "python-re"}


class TraceContext(Model):
    """Stands in the record's field `trace` as JSON, and in the completion event as its extension `traceparent`."""

    model_config = _CONFIG

    traceparent: Annotated[str, StringConstraints(pattern=TRACEPARENT)]
    tracestate: Annotated[str, StringConstraints(max_length=TRACESTATE_MAX, pattern=TRACESTATE)] | None = None

    @classmethod
    def of(cls, carrier: Mapping[str, Any]) -> Self | None:
        """What a carrier such as the headers of a request holds; None when that is nothing, or is invalid.

        A tracestate that is invalid is left out alone. Whoever cannot read a context goes on without one (W3C Trace
        Context, 4.3), so this raises nothing.
        """
        for state in (carrier.get("tracestate") or None, None):
            try:
                return cls.model_validate({"traceparent": carrier.get("traceparent"), "tracestate": state})
            except ValidationError:
                continue
        return None
