"""The command `export-worker`: its commands, and the exit status of each error.

Exit status: 0 success · 1 the export failed or was cancelled, has not ended in time, or had succeeded or failed before
`cancel` · 2 the command line, the request or the configuration is wrong, or a platform refuses the call · 3 there is no
such export · 4 a service cannot be reached, or its answer is unusable · 130 Ctrl-C ended the command.

Commands are declared apart from what they do, which is imported when a command runs. So `--help` and completion import
only click. The commands of the producer side need only the base install. If a package is missing, the command names it
and states how to install it.
"""

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from itertools import takewhile
from typing import Any, NoReturn

import click

from export_producers.commands import declarations as producers
from export_producers.commands.options import PREVIEW
from export_producers.commands.running import LANGUAGE
from export_worker.commands import declarations
from export_worker.contract.printable import ESCAPED, clean, dumps
from export_worker.errors import (
    AuthFailedError,
    ConfigError,
    ErrorCode,
    ExportNotFoundError,
    ExportWorkerError,
    FieldProblem,
    IdempotencyConflictError,
    InvalidRequestError,
    PlatformMalformedError,
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnavailableError,
    ServiceUnreachableError,
)

EXIT_STATUS: dict[type[ExportWorkerError], int] = {
    InvalidRequestError: 2,
    IdempotencyConflictError: 2,
    ConfigError: 2,
    AuthFailedError: 2,
    PlatformRefusedError: 2,
    ExportNotFoundError: 3,
    ServiceUnreachableError: 4,
    PlatformUnavailableError: 4,
    PlatformThrottledError: 4,
    PlatformMalformedError: 4,
}
"""Every other `ExportWorkerError` has the exit status 1."""

PROGRAM = "export-worker"
"""The name in usage texts, also with `python -m export_worker`. Completion depends on it."""


@click.group(
    commands=[*producers.COMMANDS, *declarations.COMMANDS],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(package_name="export-worker")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Export segments, tags and analyses from customer-data platforms to S3.

    The configuration is export-worker.toml, or the file that EXPORT_CONFIG names. EXPORT_… variables override it.
    """
    ctx.obj = open_queue
    ctx.meta[PREVIEW] = preview


def open_queue() -> object:
    """Returns a client of the configured queue."""
    from export_worker.wiring.queue import configured_queue  # noqa: PLC0415 - imports large packages

    return configured_queue()


async def preview(request: Any) -> object:
    """Asks the platform of a request what it has, for a dry run."""
    from export_worker.wiring.preview import configured_preview  # noqa: PLC0415 - imports large packages

    return await configured_preview(request)


def main() -> None:
    """Runs the command line. Each problem that a user can cause is printed as one line, without a traceback."""
    escape_what_streams_cannot_write()
    try:
        # Commands return None. An early exit, such as that of --help, returns its status.
        ended = cli(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        sys.exit(_report_usage(error))
    except click.Abort as error:
        sys.exit(_report_abort(error))
    except ExportWorkerError as error:
        sys.exit(_report(error))
    except Exception as error:
        if not isinstance(error, _failures()):
            raise
        # An unexpected failure of a connection or file. A traceback would show its address.
        reason = str(error) or type(error).__name__
        sys.exit(_report(ServiceUnreachableError(f"a connection or a file failed: {reason}")))
    _end(ended or 0)


def escape_what_streams_cannot_write() -> None:
    """Lets standard output and error escape the characters that their encoding lacks, e.g. Chinese names in Latin-1."""
    for stream in (sys.stdout, sys.stderr):
        # A stream is None if it was closed before the process started.
        # In the C locale, Python's handler is `surrogateescape`, which fails for every character beyond ASCII.
        if isinstance(stream, TextIOWrapper) and stream.errors in {"strict", "surrogateescape"}:
            stream.reconfigure(errors=ESCAPED)


def _end(status: int) -> NoReturn:
    """Ends the process, after an interrupt without waiting for its threads."""
    if status:
        from export_producers.commands import interrupts  # noqa: PLC0415 - imports asyncio

        if status == interrupts.INTERRUPTED_STATUS:
            interrupts.leave()
    sys.exit(status)


def _report_abort(error: click.Abort) -> int:
    """Prints that Ctrl-C or a refused question has ended the command, and returns the exit status."""
    if not isinstance(error.__cause__, KeyboardInterrupt):
        click.echo("Aborted!", err=True)
        return 1
    from export_producers.commands import interrupts  # noqa: PLC0415 - imports asyncio

    click.echo(interrupts.INTERRUPTED, err=True)
    return interrupts.INTERRUPTED_STATUS


def _failures() -> tuple[type[Exception], ...]:
    """Returns the errors of files and of Redis that no command has foreseen."""
    from redis.exceptions import RedisError  # noqa: PLC0415 - imports large packages

    return OSError, RedisError


def _report(error: ExportWorkerError) -> int:
    """Prints an error, and returns its exit status."""
    problems = error.problems if isinstance(error, InvalidRequestError | IdempotencyConflictError) else ()
    _print_json(error.code, str(error), problems)
    for line in error.problems if isinstance(error, InvalidRequestError | ConfigError) else (error,):
        click.echo(clean(f"error: {_in_language(str(line))}"), err=True)
    return next((status for kind, status in EXIT_STATUS.items() if isinstance(error, kind)), 1)


def _in_language(message: str) -> str:
    """Returns a message in the language of the command."""
    if (language := LANGUAGE.get()) == "en":
        return message
    from export_producers.languages.messages import translated  # noqa: PLC0415 - reads the translations

    return translated(language, message)


def _report_usage(error: click.ClickException) -> int:
    """Prints an error that click found in the command line, and returns its exit status."""
    message = error.format_message()
    _print_json(ErrorCode.INVALID_REQUEST, message, _usage_problems(error))
    error.show()
    return error.exit_code


def _usage_problems(error: click.ClickException) -> list[FieldProblem]:
    match error:
        case click.NoSuchOption():
            field = error.option_name
        case click.BadParameter(param=click.Option() as option):
            field = option.opts[0]
        case click.BadParameter(param=click.Parameter() as argument):
            field = argument.human_readable_name
        case _:
            return []
    return [FieldProblem(field, error.message or "is required")]


def _print_json(code: ErrorCode, message: str, problems: Sequence[FieldProblem]) -> None:
    # Read from the arguments: click does not parse --json when an option before it is wrong.
    if "--json" in takewhile(lambda argument: argument != "--", sys.argv[1:]):
        fields = [{"field": problem.field, "message": problem.message} for problem in problems]
        click.echo(dumps({"error": {"code": code, "message": message, "fields": fields}}))
