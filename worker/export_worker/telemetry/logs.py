"""Logs: structlog on stderr, JSON unless a person watches, and never a secret.

Events are `noun.verb_past` with fields. The export's id and step are bound once, in `machine`, by contextvars. Logs of
libraries go through the same chain, so the one processor that masks secrets sees them, too.
"""

import json
import logging
import sys
from contextlib import suppress
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from export_worker.contract.printable import clean, dumps
from export_worker.credentials import Redactor

QUIET = {
    "aio_pika": "WARNING",
    "aiokafka": "WARNING",
    "aiormq": "WARNING",
    "arq": "WARNING",
    "asyncio": "WARNING",
    "boto3": "WARNING",
    "botocore": "WARNING",
    "botocore.credentials": "CRITICAL",
    "nats": "WARNING",
    "urllib3": "ERROR",
}
"""Libraries that tell at INFO, or with a traceback, what we tell already, or at DEBUG what must not be told."""


def configure_logging(redactor: Redactor, level: str = "INFO", *, as_json: bool | None = None) -> None:
    """Send every log line of the process to stderr, masked.

    Args:
        redactor: Knows the secrets; those added later are masked from then on.
        level: The least severe level that is written.
        as_json: One JSON object a line; by default when stderr is no terminal.
    """
    as_json = not sys.stderr.isatty() if as_json is None else as_json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        # First: most lines are those of polls that say "not yet", which nobody wants to see.
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_final(redactor, as_json=as_json))
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, quiet_level in QUIET.items():
        logging.getLogger(name).setLevel(quiet_level)


class _Handler(logging.StreamHandler[TextIO]):
    """Names a line that cannot be written. By default logging would show it, with arguments that nobody has masked."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        place = f"{record.pathname}:{record.lineno}"
        with suppress(OSError, ValueError):
            self.stream.write(json.dumps({"event": "log.failed", "level": "error", "place": place}) + self.terminator)


def _final(redactor: Redactor, *, as_json: bool) -> list[Processor]:
    def mask(_: Any, __: str, event: EventDict) -> EventDict:
        masked: EventDict = redactor.value(dict(event))
        return masked

    plain = structlog.dev.plain_traceback
    for_people: list[Processor] = [_cleaned, structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    for_programs: list[Processor] = [structlog.processors.JSONRenderer(lambda event, **_: dumps(event))]
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        # Exceptions become text before masking: their messages and frames may hold an address with a token.
        structlog.processors.format_exc_info,
        mask,
        *(for_programs if as_json else for_people),
    ]


def _cleaned(_: Any, __: str, event: EventDict) -> EventDict:
    """What a terminal would obey becomes what it shows; nested values are shown by their repr, and so are clean."""
    return {clean(name): _shown(name, value) for name, value in event.items()}


def _shown(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    # A traceback keeps its lines, each of them indented: none of them looks like a line of the log.
    return "\n    ".join(map(clean, value.split("\n"))) if name in {"exception", "stack"} else clean(value)
