"""`export-worker call`: makes any call that a platform's API document describes, and checks it before it is sent."""

import sys
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from export_producers.commands import interrupts, rendering
from export_worker.commands.bodies import BodyOptions, CallBody, FileSource, Source, open_source
from export_worker.config import Config, load_config
from export_worker.contract import charsets
from export_worker.contract.printable import dumps
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.platforms.arguments import body_problem, check_arguments, describe, find_operation
from export_worker.platforms.base import Driver
from export_worker.platforms.operations import Operation, Operations, Parameter
from export_worker.telemetry.logs import configure_logging
from export_worker.wiring.catalog import masked_errors
from export_worker.wiring.connections import open_driver
from export_worker.wiring.secrets import build_redactor

JSON_BODY_MAX_BYTES = 4 * 1024 * 1024
"""The definition of a group has some kilobytes; a much larger body belongs to another call."""


def call(
    connection: str,
    operation: str | None,
    *,
    params: tuple[str, ...],
    body: str | None,
    charset: str | None,
    yes: bool,
    show: bool,
    as_json: bool,
) -> None:
    """See `declarations.call`."""
    config = load_config()
    if show:
        if operation is not None or params or body is not None or charset is not None:
            raise click.UsageError("--list takes CONNECTION and no other argument")
        _print_list(interrupts.run(_list_operations(config, connection)), as_json=as_json)
        return
    if operation is None:
        raise click.UsageError(f"OPERATION is missing; list them with: export-worker call {connection} --list")
    called = _call(config, connection, operation, params=params, body=BodyOptions(body, charset), yes=yes)
    answer = interrupts.run(called, lambda: "The platform may have received the call.")
    click.echo(dumps(answer, indent=None if as_json else 2))


async def _list_operations(config: Config, connection: str) -> list[Operation]:
    async with open_driver(config, connection, build_redactor(config)) as driver:
        return list(_operations(driver, config.connections[connection].platform).operations.values())


async def _call(
    config: Config, connection: str, name: str, *, params: Sequence[str], body: BodyOptions, yes: bool
) -> Any:
    redactor = build_redactor(config)
    configure_logging(redactor, "ERROR")
    async with open_driver(config, connection, redactor) as driver:
        operations = _operations(driver, config.connections[connection].platform)
        operation = find_operation(operations.operations, name)
        problem = body_problem(operation, given=body.name is not None)
        if problem is not None:
            raise InvalidRequestError([problem])
        _check_charset(body.charset, operation)
        async with AsyncExitStack() as stack:
            source = None
            if body.name is not None:
                source = await stack.enter_async_context(open_source(config, connection, redactor, body.name))
            document = await _json_body(source) if source is not None and operation.body == "json" else None
            arguments = check_arguments(operation, params, document)
            upload = CallBody(source, body.charset) if source is not None and operation.body == "csv" else None
            if not yes:
                await _confirm(operation, connection, arguments, upload)
            # A platform may repeat a credential in its answer.
            with masked_errors(redactor):
                return redactor.value(await operations.call(operation, arguments, upload))


def _check_charset(label: str | None, operation: Operation) -> None:
    if label is None:
        return
    if operation.body != "csv":
        raise InvalidRequestError([FieldProblem("--charset", f"is not used: {operation.name} takes no CSV")])
    try:
        charsets.charset(label)
    except ValueError as error:
        raise InvalidRequestError([FieldProblem("--charset", str(error))]) from None


def _operations(driver: Driver, platform: str) -> Operations:
    if not isinstance(driver, Operations):
        raise InvalidRequestError([FieldProblem("connection", f"{platform} offers no operations")])
    return driver


async def _confirm(operation: Operation, connection: str, arguments: dict[str, Any], upload: CallBody | None) -> None:
    """Asks the user before the operation deletes something, or replaces something by an empty body.

    Without a terminal, the option `--yes` is required.
    """
    does = "deletes" if operation.deletes else "sends an empty body"
    if not operation.deletes and (upload is None or not await upload.is_empty()):
        return
    if sys.stdin is None or not sys.stdin.isatty():
        message = f"is required: {operation.name} {does}, and there is no terminal for a confirmation"
        raise InvalidRequestError([FieldProblem("--yes", message)])
    shown = ", ".join(f"{name}={value}" for name, value in arguments.items())
    with interrupts.blocking_input():
        click.confirm(f"{operation.name} on {connection} {does} ({shown}). Continue?", abort=True, err=True)


async def _json_body(source: Source) -> bytes:
    if isinstance(source, FileSource):
        with interrupts.blocking_input():
            document = source.read_now(JSON_BODY_MAX_BYTES + 1)
    else:
        document = await _first_bytes(source, JSON_BODY_MAX_BYTES + 1)
    if len(document) > JSON_BODY_MAX_BYTES:
        raise InvalidRequestError([FieldProblem("body", f"must have at most {JSON_BODY_MAX_BYTES} bytes")])
    return document


async def _first_bytes(source: Source, limit_bytes: int) -> bytes:
    document = b""
    while len(document) < limit_bytes and (chunk := await source.read(len(document))):
        document += chunk
    return document


def _print_list(operations: Sequence[Operation], *, as_json: bool) -> None:
    if as_json:
        click.echo(dumps([asdict(operation) for operation in operations]))
    else:
        rendering.console().print(_table(operations))


def _table(operations: Iterable[Operation]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("OPERATION", "CALL", "PARAMETERS (* required)", "BODY"):
        grid.add_column(column, overflow="fold")
    for operation in operations:
        names = "\n".join((operation.name, *operation.aliases))
        what = f"{operation.method} {operation.path}\n{operation.about}"
        grid.add_row(*map(Text, (names, what, _parameters(operation), _body(operation))))
    return grid


def _parameters(operation: Operation) -> str:
    lines = [_parameter(parameter) for parameter in operation.parameters]
    lines += [f"exactly one of {', '.join(group)}" for group in operation.one_of]
    lines += [f"at least one of {', '.join(group)}" for group in operation.any_of]
    return "\n".join(lines)


def _parameter(parameter: Parameter) -> str:
    star = "*" if parameter.required else ""
    about = f" ({parameter.about})" if parameter.about else ""
    return f"{parameter.name}{star}: {describe(parameter)}{about}"


def _body(operation: Operation) -> str:
    body = {"none": "", "json": "JSON object", "csv": "CSV"}[operation.body]
    return "; ".join(filter(None, (body, "asks first" if operation.deletes else "")))
