"""What a step runner needs of S3, and a form of it that is built when a step needs it.

A worker of the role `control` uses S3 only to end an export that was transferring, and to restart one that had
succeeded. Until then it does not import boto3 and the transfer engine, which take a third of its memory.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from export_worker.errors import ConfigError, StorageError, StorageUnusableError
from export_worker.lifecycle.decisions import Decision
from export_worker.lifecycle.export import Running, State, Transferring
from export_worker.worker.connections import Connection, Connections
from export_worker.worker.leases import HeldStep
from export_worker.worker.store_gates import NO_GATES, StoreGates

_log = structlog.get_logger(__name__)


class Storing(Protocol):
    """The steps and parts of steps that use S3. `TransferStep` has them."""

    @property
    def gates(self) -> StoreGates:
        """Keep the worker from transfers whose store it cannot use."""
        ...

    async def run(self, held: HeldStep, connection: Connection) -> Decision:
        """See `TransferStep.run`."""
        ...

    async def remove_success(self, held: HeldStep) -> None:
        """See `TransferStep.remove_success`."""
        ...

    async def confirm_end(self, held: HeldStep, ending: Decision, connections: Connections) -> Decision:
        """See `TransferStep.confirm_end`."""
        ...

    async def abort_leftovers(self, held: HeldStep) -> None:
        """See `TransferStep.abort_leftovers`."""
        ...


class StoringWhenNeeded:
    """Builds the S3 side when a step needs it first.

    Args:
        build: Builds it, and something that is not used here. Not called again after it has succeeded.
    """

    gates = NO_GATES
    """The role `control` claims no transfers, so it needs no gates."""

    def __init__(self, build: Callable[[], Awaitable[tuple[Storing, object]]]) -> None:
        self._build = build
        self._built: Storing | None = None
        self._building = asyncio.Lock()

    async def run(self, held: HeldStep, connection: Connection) -> Decision:
        """See `TransferStep.run`."""
        return await (await self._storing()).run(held, connection)

    async def remove_success(self, held: HeldStep) -> None:
        """See `TransferStep.remove_success`."""
        await (await self._storing()).remove_success(held)

    async def confirm_end(self, held: HeldStep, ending: Decision, connections: Connections) -> Decision:
        """See `TransferStep.confirm_end`."""
        if not may_be_complete(held.claimed.export.state):
            return ending
        return await (await self._storing()).confirm_end(held, ending, connections)

    async def abort_leftovers(self, held: HeldStep) -> None:
        """See `TransferStep.abort_leftovers`."""
        if not may_have_uploads(held.claimed.export.state):
            return
        try:
            storing = await self._storing()
        except StorageError as error:
            _log.warning("upload.left_open", error=str(error))
        else:
            await storing.abort_leftovers(held)

    async def _storing(self) -> Storing:
        """Returns the S3 side.

        Raises:
            StorageUnusableError: A setting is wrong. A transfer worker does not start then.
        """
        async with self._building:
            if self._built is None:
                try:
                    self._built, _ = await self._build()
                except ConfigError as error:
                    raise StorageUnusableError(str(error)) from None
            return self._built


def may_be_complete(state: State) -> bool:
    """Returns whether `_SUCCESS` of an export that has not succeeded may be in S3."""
    return isinstance(state, Transferring) and state.landed_at is not None


def may_have_uploads(state: State) -> bool:
    """Returns whether an export may have incomplete uploads in S3."""
    return isinstance(state, Transferring) or (isinstance(state, Running) and state.upload is not None)
