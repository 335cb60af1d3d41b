"""The sections `retry` and `worker`."""

from typing import Annotated

from pydantic import Field

from export_worker.config.section import Section


class RetrySettings(Section):
    """How often a step may fail in a row, and the waits between (seconds).

    The defaults ride out some ten minutes; a platform that is down for longer is waited for by the breaker.
    """

    max_attempts: Annotated[int, Field(ge=1)] = 12
    first_s: Annotated[float, Field(gt=0)] = 1.0
    max_s: Annotated[float, Field(gt=0)] = 300.0


class WorkerSettings(Section):
    """How much one worker takes on, and how soon a dead one is noticed.

    Args:
        control_steps: Submits and polls at once.
        transfers: Exports that move bytes at once.
        lease_s: A worker that says nothing for so long has lost its step.
        sweep_s: Seconds between looks for overdue exports.
        drain_s: Seconds that running steps get when the worker is told to stop.
        retention_s: How long an ended export can be looked at.
        breaker_first_s: How long a platform that does not answer is left alone at first; doubles with each look.
        breaker_max_s: It is left alone no longer than this.
        health_host: Where `/healthz`, `/readyz` and `/metrics` are served.
        health_port: On which port; 0 takes a free one, which the log names. Left out, nothing is served.
        tracing: Send spans where the `OTEL_` variables say; needs the extra `tracing`.
    """

    control_steps: Annotated[int, Field(ge=1)] = 50
    transfers: Annotated[int, Field(ge=1)] = 4
    lease_s: Annotated[float, Field(ge=1)] = 15.0
    sweep_s: Annotated[float, Field(gt=0)] = 5.0
    drain_s: Annotated[float, Field(ge=0)] = 10.0
    retention_s: Annotated[float, Field(ge=60)] = 7 * 86_400.0
    breaker_first_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    breaker_max_s: Annotated[float, Field(gt=0, le=3600)] = 300.0
    health_host: str = "127.0.0.1"
    health_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    tracing: bool = False
