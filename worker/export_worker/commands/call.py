"""`export-worker call`: any other call that a platform's document describes, checked before it is sent."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import click
from rich.table import Table
from rich.text import Text

from export_producers.commands import rendering
from export_producers.commands.options import TEXT
from export_worker.config import Config, load_config
from export_worker.contract.printable import dumps
from export_worker.credentials import Redactor
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.platforms.arguments import body_problem, check_arguments, describe, find_operation
from export_worker.platforms.base import Driver
from export_worker.platforms.operations import Operation, Operations, Parameter
from export_worker.wiring.connections import open_driver
from export_worker.wiring.secrets import build_redactor

CHUNK_BYTES = 64 * 1024
"""Of a CSV body, read at once."""
JSON_BODY_MAX_BYTES = 4 * 1024 * 1024
"""A definition of a group has some kilobytes; what is larger was meant for another call."""


@click.command()
@click.argument("connection", type=TEXT)
@click.argument("operation", type=TEXT, required=False)
@click.option("--param", "params", type=TEXT, metavar="K=V", multiple=True, help="A parameter; repeat it for a list.")
@click.option("--body", "body", metavar="FILE|-", help="JSON or CSV, as the operation takes it; - is standard input.")
@click.option("--yes", is_flag=True, help="Do not ask before something is deleted.")
@click.option("--list", "show", is_flag=True, help="Show every operation of CONNECTION instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def call(
    connection: str,
    operation: str | None,
    *,
    params: tuple[str, ...],
    body: str | None,
    yes: bool,
    show: bool,
    as_json: bool,
) -> None:
    """Make the call OPERATION of CONNECTION's platform, and print its answer as JSON."""
    config = load_config()
    if show:
        if operation is not None or params or body is not None:
            raise click.UsageError("--list goes with CONNECTION alone")
        _print_list(asyncio.run(_known(config, connection)), as_json=as_json)
        return
    if operation is None:
        raise click.UsageError(f"which OPERATION? See: export-worker call {connection} --list")
    answer = asyncio.run(_answer(config, connection, operation, params=params, body=body, yes=yes))
    click.echo(dumps(answer, indent=None if as_json else 2))


async def _known(config: Config, connection: str) -> list[Operation]:
    async with open_driver(config, connection, Redactor()) as driver:
        return list(_operations(driver, config.connections[connection].platform).operations.values())


async def _answer(
    config: Config, connection: str, name: str, *, params: Sequence[str], body: str | None, yes: bool
) -> Any:
    redactor = build_redactor(config)
    async with open_driver(config, connection, redactor) as driver:
        operations = _operations(driver, config.connections[connection].platform)
        operation = find_operation(operations.operations, name)
        problem = body_problem(operation, given=body is not None)
        if problem is not None:
            raise InvalidRequestError([problem])
        with _opened(body) as source:
            document = None
            if source is not None and operation.body == "json":
                document = _json_body(source)
            arguments = check_arguments(operation, params, document)
            if operation.deletes and not yes:
                _ask(operation, connection, arguments)
            stream = _chunks(source) if source is not None and operation.body == "csv" else None
            # A careless platform may repeat a credential in a good answer, too.
            return redactor.value(await operations.call(operation, arguments, stream))


def _operations(driver: Driver, platform: str) -> Operations:
    if not isinstance(driver, Operations):
        raise InvalidRequestError([FieldProblem("connection", f"{platform} offers no calls")])
    return driver


def _ask(operation: Operation, connection: str, arguments: dict[str, Any]) -> None:
    """Go on only if somebody says so; where nobody can be asked, that must have been said before."""
    if sys.stdin is None or not sys.stdin.isatty():
        message = f"is needed: {operation.name} deletes, and there is no terminal to ask at"
        raise InvalidRequestError([FieldProblem("--yes", message)])
    what = ", ".join(f"{name}={value}" for name, value in arguments.items())
    click.confirm(f"{operation.name} on {connection} deletes ({what}). Go on?", abort=True, err=True)


@contextmanager
def _opened(body: str | None) -> Iterator[BinaryIO | None]:
    if body is None:
        yield None
    elif body == "-":
        if sys.stdin is None:
            raise InvalidRequestError([FieldProblem("body", "standard input is closed")])
        yield sys.stdin.buffer
    else:
        try:
            file = Path(body).open("rb")  # noqa: SIM115 - closed below; an error of whoever uses it is none of opening
        except OSError as error:
            raise InvalidRequestError([FieldProblem("body", f"cannot read {body} ({error.strerror})")]) from None
        with file:
            yield file


def _json_body(source: BinaryIO) -> bytes:
    document = source.read(JSON_BODY_MAX_BYTES + 1)
    if len(document) > JSON_BODY_MAX_BYTES:
        raise InvalidRequestError([FieldProblem("body", f"must have at most {JSON_BODY_MAX_BYTES} bytes")])
    return document


async def _chunks(source: BinaryIO) -> AsyncIterator[bytes]:
    """The file as it comes, never more than a piece of it in memory."""
    while chunk := await asyncio.to_thread(source.read, CHUNK_BYTES):
        yield chunk


def _print_list(operations: Sequence[Operation], *, as_json: bool) -> None:
    if as_json:
        click.echo(dumps([asdict(operation) for operation in operations]))
    else:
        rendering.console().print(_table(operations))


def _table(operations: Iterable[Operation]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("OPERATION", "CALL", "PARAMETERS (* needed)", "BODY"):
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
    words = {"none": "", "json": "JSON object", "csv": "CSV"}[operation.body]
    return f"{words} asks first".strip() if operation.deletes else words
