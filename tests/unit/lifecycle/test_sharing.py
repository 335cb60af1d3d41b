"""What an export takes over from the one whose operation it shares."""

import pytest

from export_worker.contract.request import ExportRequest, GrowingioTagUsers
from export_worker.contract.status import Phase
from export_worker.errors import ErrorCode, ObjectExistsError, ResultMissingError
from export_worker.lifecycle import endings, sharing, transitions
from export_worker.lifecycle.export import Export, Failed, Running, Transferring
from export_worker.lifecycle.observations import OperationFailed, Stored
from support.export_states import POLICY, at, export_of, running, running_state, stored, transferring


def shared(source: Export | None) -> Export:
    """Returns another export after it has taken over from the source."""
    waiting = export_of(share=True).model_copy(update={"export_id": "e2"})
    decision = sharing.after_source(waiting, source, at(10))
    assert decision.took_over
    return decision.export


def succeeded() -> Export:
    export = transferring()
    assert isinstance(export.state, Transferring)
    return transitions.after_transfer(export, export.state, Stored((stored(),), "s3://b/_manifest.json"), at(5)).export


def test_files_of_a_succeeded_export_are_copied_and_polled_for_if_they_are_missing() -> None:
    export = shared(succeeded())
    assert isinstance(export.state, Transferring)
    assert (export.state.copy_of, export.state.operation_id, len(export.state.files)) == ("e1", "op1", 1)
    state = endings.after_failure(export, ResultMissingError("gone"), at(11), POLICY).export.state
    assert isinstance(state, Running)
    assert (state.operation_id, state.names) == ("op1", [])


def test_retry_of_an_export_that_failed_while_it_copied_continues_with_the_operation() -> None:
    failed = endings.after_failure(shared(succeeded()), ObjectExistsError("taken"), at(11), POLICY).export
    assert isinstance(failed.state, Failed)
    restarted = transitions.restart(failed, "transfer", at(12)).export
    assert restarted.state == Running(operation_id="op1", stage=failed.state.stage)


def test_failed_operation_fails_all_with_its_error() -> None:
    export = running(share=True)
    failed = transitions.after_poll(export, running_state(export), OperationFailed("ERROR", "no rows"), at(5), POLICY)
    assert sharing.takers(failed.export) == "all"
    taken = shared(failed.export)
    assert taken.phase is Phase.FAILED
    assert taken.error is not None
    assert (taken.error.code, taken.error.message) == (
        ErrorCode.PLATFORM_ERROR,
        "no rows (the operation is shared with export e1)",
    )


@pytest.mark.parametrize("cause", ["cancel", "deadline"])
def test_operation_of_an_export_that_ended_for_itself_continues(cause: str) -> None:
    export = running(share=True)
    end = endings.after_cancel(export, at(5)) if cause == "cancel" else endings.after_deadline(export, at(5), POLICY)
    assert sharing.takers(end.export) == "next"
    taken = shared(end.export)
    assert isinstance(taken.state, Running)
    assert (taken.state.operation_id, taken.counters.submits) == ("op1", 0)


def test_export_submits_itself_if_there_is_no_operation_and_counts_what_is_unclear() -> None:
    unclear = export_of(share=True).model_copy(update={"unclear_submits": 1})
    export = shared(endings.after_cancel(unclear, at(5)).export)
    assert (export.phase, export.unclear_submits) == (Phase.QUEUED, 1)
    assert shared(None).phase is Phase.QUEUED
    assert sharing.takers(endings.fail(export_of(), ErrorCode.PLATFORM_ERROR, "no", at(5)).export) is None


def test_requests_share_if_connection_export_and_output_are_equal() -> None:
    def digest(**fields: object) -> str | None:
        document = {"connection": "gio", "export": GrowingioTagUsers(tag_key="t"), "share": True} | fields
        return ExportRequest.model_validate(document).sharing_digest()

    assert digest(share=False) is None
    assert digest() == digest(metadata={"a": "b"}, deadline_s=60, notify=["hook"], idempotency_key="k")
    different = [digest(connection="ta"), digest(export=GrowingioTagUsers(tag_key="u"))]
    assert digest() not in [*different, digest(output={"compression": "gzip"})]


def test_request_without_share_has_the_fingerprint_and_the_json_of_before() -> None:
    request = ExportRequest(connection="gio", export=GrowingioTagUsers(tag_key="t"))
    assert "share" not in request.model_dump(mode="json")
    assert "share" not in request.compared()
