"""The command `export-worker`: its commands, and the exit status of each error.

Exit status: 0 success · 1 the export failed or was cancelled, has not ended in time, or had succeeded or failed before
`cancel` · 2 the command line, the request or the configuration is wrong, or a platform refuses the call · 3 there is no
such export · 4 a service cannot be reached, or its answer is unusable.

The commands of the producer side need only the base install. The commands of the worker side are imported when they
are called. If a package is missing, the command names it and states how to install it.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import takewhile
from typing import Any

import click
from pydantic import BaseModel
from redis.exceptions import RedisError

from export_producers.client import ExportQueue
from export_producers.commands import actions
from export_producers.commands import exports as producer
from export_producers.gateway import openapi
from export_worker.config import Config, load_config
from export_worker.contract.event import Event
from export_worker.contract.extras import missing_package
from export_worker.contract.printable import clean, dumps
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Status
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
from export_worker.wiring.queue import build_queue

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

WORKER_COMMANDS = {
    "run": "export_worker.commands.run:run",
    "catalog": "export_worker.commands.catalog:catalog",
    "call": "export_worker.commands.call:call",
    "events": "export_worker.commands.events:events",
    "doctor": "export_worker.commands.doctor:doctor",
    "gateway": "export_worker.commands.gateway:gateway",
    "trigger": "export_worker.commands.trigger:trigger",
    "simulate": "export_worker.commands.simulate:simulate",
    "demo": "export_worker.demo.command:demo",
}
"""The commands that need more than the base install, with their module and function."""


class Commands(click.Group):
    """A group that imports a command of the worker side only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all commands, including those whose extra is not installed."""
        return sorted([*super().list_commands(ctx), *WORKER_COMMANDS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns one command. If a package is missing, returns a command that reports the missing package."""
        target = WORKER_COMMANDS.get(cmd_name)
        if target is None:
            return super().get_command(ctx, cmd_name)
        module, attribute = target.split(":")
        try:
            command: click.Command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            return _missing(cmd_name, error.name or "a package")
        return command


def _missing(name: str, package: str) -> click.Command:
    @click.command(name, short_help=f"(needs {package})", context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1)
    def missing(**_: Any) -> None:
        raise click.UsageError(missing_package(name, package))

    return missing


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="export-worker")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Export segments, tags and analyses from customer-data platforms to S3.

    The configuration is export-worker.toml, or the file that EXPORT_CONFIG names. EXPORT_… variables override it.
    """
    ctx.obj = open_queue


def open_queue() -> ExportQueue:
    """Returns a client of the configured queue."""
    return build_queue(load_config())


@cli.command()
@click.argument("document", type=click.Choice(["request", "status", "event", "config", "openapi"]))
def schema(document: str) -> None:
    """Print the JSON Schema of a document, or the OpenAPI document."""
    if document == "openapi":
        click.echo(dumps(openapi.document()))
        return
    written: dict[str, type[BaseModel]] = {"request": ExportRequest, "config": Config}
    read: dict[str, type[BaseModel]] = {"status": Status, "event": Event}
    if document in written:
        found: dict[str, Any] = written[document].model_json_schema(mode="validation")
    else:
        found = read[document].model_json_schema(mode="serialization")
    click.echo(dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **found}))


for command in (
    producer.enqueue,
    producer.status,
    producer.list_,
    producer.watch,
    actions.cancel,
    actions.retry,
    actions.explain,
):
    cli.add_command(command)


def main() -> None:
    """Runs the command line. An error that a user can cause is printed as one line, without a traceback."""
    try:
        # Commands return None. An early exit, such as that of --help, returns its status.
        ended = cli(standalone_mode=False)
    except click.ClickException as error:
        sys.exit(_report_usage(error))
    except click.Abort as error:
        click.echo("Aborted!", err=True)
        sys.exit(130 if isinstance(error.__cause__, KeyboardInterrupt) else 1)
    except ExportWorkerError as error:
        sys.exit(_report(error))
    except (OSError, RedisError) as error:
        # An unexpected failure of a connection or file. A traceback would show its address.
        reason = str(error) or type(error).__name__
        sys.exit(_report(ServiceUnreachableError(f"a connection or a file failed: {reason}")))
    sys.exit(ended or 0)


def _report(error: ExportWorkerError) -> int:
    """Prints an error, and returns its exit status."""
    problems = error.problems if isinstance(error, InvalidRequestError) else ()
    _print_json(error.code, str(error), problems)
    click.echo(clean(f"error: {error}"), err=True)
    return next((status for kind, status in EXIT_STATUS.items() if isinstance(error, kind)), 1)


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
