"""The driver of a connection, for the commands that ask a platform directly."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from export_worker.config import Config
from export_worker.credentials import Redactor
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.platforms.base import Driver
from export_worker.platforms.registry import build_driver


@asynccontextmanager
async def open_driver(config: Config, connection: str, redactor: Redactor) -> AsyncIterator[Driver]:
    """The driver of one connection, closed at the end.

    Raises:
        InvalidRequestError: No such connection is configured.
        ConfigError: Its settings are wrong.
    """
    settings = config.connections.get(connection)
    if settings is None:
        known = ", ".join(sorted(config.connections)) or "none is configured"
        raise InvalidRequestError([FieldProblem("connection", f"unknown connection {connection!r}; known: {known}")])
    driver = build_driver(connection, settings, redactor)
    try:
        yield driver
    finally:
        await driver.close()
