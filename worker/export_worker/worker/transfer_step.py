"""The transfer step: streams an export's files into S3, and saves each one that is stored."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial

import structlog
from redis.exceptions import RedisError

from export_worker.contract.status import ManifestObject
from export_worker.credentials import Redactor
from export_worker.errors import LeaseLostError, ObjectExistsError, ResultMissingError, StorageError
from export_worker.lifecycle import transitions
from export_worker.lifecycle.decisions import Decision
from export_worker.lifecycle.export import Succeeded, Transferring
from export_worker.lifecycle.observations import Polled, RemoteFile, ResumableUpload
from export_worker.platforms.base import Download, Driver, ResumePoint, Resuming
from export_worker.redis.claims import NO_SIGNAL, PlatformSignal
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, Instrument
from export_worker.transfer.callbacks import TransferCallbacks
from export_worker.transfer.export_writer import ExportWriter
from export_worker.worker.answer_masking import FileAddresses
from export_worker.worker.clock import ClockAndRandom
from export_worker.worker.connections import Connection, Connections
from export_worker.worker.leases import HeldStep, Leases
from export_worker.worker.step_details import Stopwatch, file_stored, timed_call, timed_open
from export_worker.worker.store_gates import NO_GATES, StoreGates
from export_worker.worker.storing import may_have_uploads

_log = structlog.get_logger(__name__)


class TransferStep:
    """Runs transfer steps.

    Args:
        leases: Saves what was stored while the step continues.
        writer: Writes files into S3.
        clock: The time and random numbers.
        instrument: Receives the details of calls and stored files.
        gates: Decide whether a failure of S3 is one of the export or of its store.
        redactor: Has masked secrets in what the platform returned; None if no secret is known.
    """

    def __init__(
        self,
        leases: Leases,
        writer: ExportWriter,
        clock: ClockAndRandom,
        instrument: Instrument = NULL_INSTRUMENT,
        gates: StoreGates = NO_GATES,
        *,
        redactor: Redactor | None = None,
    ) -> None:
        self._leases = leases
        self._writer = writer
        self._clock = clock
        self._instrument = instrument
        self.gates = gates
        self._redactor = redactor or Redactor()

    async def run(self, held: HeldStep, connection: Connection) -> Decision:
        """Stores every file that is not in S3 yet, then the manifest and `_SUCCESS`.

        Files of earlier attempts that the manifest does not list are removed before.

        Raises:
            StepError: A download, a transform or a call to S3 failed.
            LeaseLostError: Another worker has the export now.
        """
        async with self._judged(held):
            decision = await self._run(held, connection)
        self.gates.stored(_connection_of(held))
        return decision

    async def _run(self, held: HeldStep, connection: Connection) -> Decision:
        export, state = held.claimed.export, _transferring(held)
        # A worker that died, or a call whose response was lost, may have left an upload that is not in the record.
        if held.claimed.claims > 1 or export.attempt:
            await self.abort_leftovers(held, state.upload)
        writer, callbacks = self._writer.for_export(export), self._callbacks(held, connection.driver)
        if writer.has_moved(export, state):
            await self._leases.checkpoint(held, transitions.after_move(export, state, self._clock.moment()))
            export, state = held.claimed.export, _transferring(held)
        if export.generation > 1 and state.landed_at is None:
            # After a restart: the export must not seem complete while its files change.
            await writer.remove_success(export)
        if state.copy_of is None:
            await writer.store_files(export, state, callbacks, connection.bandwidth, connection.columns)
        else:
            await writer.copy_files(export, state, await self._shared_files(state.copy_of), callbacks)
        held.check()
        export, state = held.claimed.export, _transferring(held)
        removed_files = await writer.remove_earlier_files(export, state)
        stored = await writer.write_success(export, state)
        return transitions.after_transfer(export, state, stored, self._clock.moment(), removed_files=removed_files)

    async def _shared_files(self, source_id: str) -> Sequence[ManifestObject]:
        """Returns the stored files of the export whose operation this one shares.

        Raises:
            ResultMissingError: It has been restarted, or is no longer stored. The operation still has the files.
        """
        source = await self._leases.sharing.read(source_id)
        if source is None or not isinstance(source.state, Succeeded):
            raise ResultMissingError(f"export {source_id}, whose files are copied, no longer has them")
        return source.state.stored

    async def remove_success(self, held: HeldStep) -> None:
        """Removes `_SUCCESS` and the manifest of the export's earlier end.

        If the keys belong to another export by now, nothing is removed.

        Raises:
            StorageError: S3 refused or did not answer.
        """
        export = held.claimed.export
        with suppress(ObjectExistsError):
            async with self._judged(held):
                await self._writer.for_export(export).remove_success(export)

    async def confirm_end(self, held: HeldStep, ending: Decision, connections: Connections) -> Decision:
        """Returns how an export ends that is about to fail or to be cancelled.

        A worker may have died after it wrote `_SUCCESS`, or the response to this write may have been lost. Readers may
        use the files since then, so the export has succeeded.

        Raises:
            StepError: S3 did not answer, or this worker does not have the connection: how it ends is not known yet.
        """
        export, state = held.claimed.export, held.claimed.export.state
        if not isinstance(state, Transferring) or state.landed_at is None:
            return ending
        connections.get(export)  # another bucket may be configured for a connection that this worker does not have
        async with self._judged(held):
            stored = await self._writer.for_export(export).find_success(export, state)
        if stored is None:
            return ending
        return transitions.after_seal_found(export, state, stored, ending, self._clock.moment())

    @asynccontextmanager
    async def _judged(self, held: HeldStep) -> AsyncIterator[None]:
        """Replaces an error of S3 by `StoragePausedError` if the store is to blame for it, and not the export."""
        try:
            yield
        except StorageError as error:
            claimed = held.claimed
            judged = await self.gates.judge(_connection_of(held), claimed.export.export_id, error, claimed.since_s)
            for note in getattr(error, "__notes__", ()) if judged is not error else ():
                judged.add_note(note)
            raise judged from None

    async def abort_leftovers(self, held: HeldStep, keep: ResumableUpload | None = None) -> None:
        """Aborts uploads that earlier attempts have left open, except for the one that is resumed.

        An S3 that cannot be reached must not keep an export from its end. What stays open is logged, and the bucket's
        lifecycle rule removes it.
        """
        export = held.claimed.export
        if not may_have_uploads(export.state):
            return
        try:
            await self._writer.for_export(export).abort_leftovers(export, keep)
        except StorageError as error:
            _log.warning("upload.left_open", error=str(error))

    def _callbacks(self, held: HeldStep, driver: Driver) -> TransferCallbacks:
        addresses = FileAddresses(partial(self._poll, held, driver), self._redactor)
        return TransferCallbacks(
            open_file=partial(self._open_file, held, driver, addresses),
            on_progress=held.show_progress,
            on_files_stored=partial(self._save_files, held, Stopwatch()),
            on_upload_changed=partial(self._save_upload, held),
            on_parts_sent=partial(self._note_parts, held),
        )

    async def _poll(self, held: HeldStep, driver: Driver) -> Polled:
        export = held.claimed.export
        with timed_call(self._instrument, export, "poll"):
            return await driver.poll(export.request.export, _transferring(held).operation_id)

    @asynccontextmanager
    async def _open_file(
        self,
        held: HeldStep,
        driver: Driver,
        addresses: FileAddresses,
        file: RemoteFile,
        resume_point: ResumePoint | None,
    ) -> AsyncIterator[Download]:
        """Opens a file at its beginning, or at the resume point if the platform supports that."""
        export, file = held.claimed.export, await addresses.find(file)
        if resume_point is not None and isinstance(driver, Resuming):
            opened: AbstractAsyncContextManager[Download] = driver.resume_result(
                export.request.export, file, resume_point
            )
        else:
            opened = driver.open_result(export.request.export, file)
        async with timed_open(self._instrument, export, opened) as download:
            yield download

    async def _save_files(self, held: HeldStep, stopwatch: Stopwatch, stored: Sequence[ManifestObject]) -> None:
        export, duration_s = held.claimed.export, stopwatch.lap_s() / len(stored)
        for item in stored:
            self._instrument.on(file_stored(export, item, duration_s))
        decision = transitions.after_files(export, _transferring(held), stored, self._clock.moment())
        self.gates.stored(_connection_of(held))
        await self._leases.checkpoint(held, decision, PlatformSignal("up"))

    async def _save_upload(self, held: HeldStep, upload: ResumableUpload | None, note: str | None) -> None:
        state = _transferring(held)
        decision = transitions.after_upload(held.claimed.export, state, upload, self._clock.moment(), note)
        # Platform and S3 have both answered, so the exports that wait for this one need not wait for its last byte.
        signal = PlatformSignal("up") if upload is not None and held.claimed.spared else NO_SIGNAL
        await self._leases.checkpoint(held, decision, signal)

    async def _note_parts(self, held: HeldStep, upload: ResumableUpload) -> None:
        """Saves which parts were sent. If Redis fails, the transfer continues; a resume would send some parts again."""
        decision = transitions.after_upload(
            held.claimed.export, _transferring(held), upload, self._clock.moment(), None
        )
        with suppress(RedisError, OSError, LeaseLostError):
            await self._leases.checkpoint(held, decision)


def _connection_of(held: HeldStep) -> str:
    return held.claimed.export.request.connection


def _transferring(held: HeldStep) -> Transferring:
    state = held.claimed.export.state
    if not isinstance(state, Transferring):
        raise TypeError("only a transferring export stores files")
    return state
