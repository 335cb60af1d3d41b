"""Logs: structlog writes to stderr, as JSON unless stderr is a terminal, and masks every secret.

Events are named `noun.verb_past` and have fields. The worker binds the export's id and step once, by context variables.
Log lines of libraries pass through the same processors, so their secrets are masked too. A separate thread writes the
lines, so a reader that does not read cannot stop the process.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from export_worker.contract.printable import clean, dumps
from export_worker.credentials import Redactor
from export_worker.telemetry.line_writer import LineWriter

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
"""Libraries that would repeat the worker's log lines at INFO or with tracebacks, or log confidential data at DEBUG."""


def configure_logging(redactor: Redactor, level: str = "INFO", *, as_json: bool | None = None) -> None:
    """Sends every log line of the process to stderr, with secrets masked.

    Args:
        redactor: Masks the secrets; a secret that is added later is masked from then on.
        level: The least severe level that is written.
        as_json: Write one JSON object for each line. The default is to do so unless stderr is a terminal.
    """
    as_json = not sys.stderr.isatty() if as_json is None else as_json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        # The first processor drops most log calls: they are at DEBUG, from polls that found "not yet".
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sys.stderr, _dropped_line)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_final(redactor, as_json=as_json))
    )
    root = logging.getLogger()
    for former in root.handlers:
        if isinstance(former, LineWriter):
            former.close()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, quiet_level in QUIET.items():
        logging.getLogger(name).setLevel(quiet_level)


class _Handler(LineWriter):
    """Reports the source line of a log call that failed. Python's default would print its arguments, unmasked."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        self.put(json.dumps({"event": "log.failed", "level": "error", "source": f"{record.pathname}:{record.lineno}"}))


def dropped_lines() -> int:
    """Returns the number of log lines that this process has dropped, because they were not read in time."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, LineWriter))


def _dropped_line(dropped: int) -> str:
    """Returns the line that reports dropped lines. It bypasses the processors: it is written by their thread."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({"event": "log.lines_dropped", "level": "warning", "dropped": dropped, "timestamp": now})


def _final(redactor: Redactor, *, as_json: bool) -> list[Processor]:
    def mask(_: Any, __: str, event: EventDict) -> EventDict:
        masked: EventDict = redactor.value(dict(event))
        return masked

    plain = structlog.dev.plain_traceback
    for_terminals: list[Processor] = [_escape_controls, structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    for_programs: list[Processor] = [structlog.processors.JSONRenderer(lambda event, **_: dumps(event))]
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        # Exceptions are rendered before masking: their messages and frames may contain an address with a token.
        structlog.processors.format_exc_info,
        mask,
        *(for_programs if as_json else for_terminals),
    ]


def _escape_controls(_: Any, __: str, event: EventDict) -> EventDict:
    """Replaces control characters by visible text. The repr that shows nested values contains none."""
    return {clean(name): _printable(name, value) for name, value in event.items()}


def _printable(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    # A traceback keeps its line breaks. Its lines are indented, so that they cannot be mistaken for log lines.
    return "\n    ".join(map(clean, value.split("\n"))) if name in {"exception", "stack"} else clean(value)
