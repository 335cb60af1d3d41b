"""The packed record of an ended export: what is packed is read again, and damaged bytes are refused."""

import json
import zlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_worker.contract import past
from export_worker.contract.past import HEADER_LINES, Past, UnreadablePastError, pack_body, read_header, unpack
from export_worker.contract.past_documents import event_of_past, request_of_past, status_of_past

EXPORT_ID = "5c9760e4916f4f8082566a9a81f9c14e"
HEADER = b"2\nsucceeded\n1\n4\n2147483648\n260721719547162\n1796079438101\ngio\ngrowingio.segment_users\nlibrary\n\n\n"
STORED = {
    "uri": f"s3://exports/{EXPORT_ID}/users.csv",
    "bucket": "exports",
    "key": f"{EXPORT_ID}/users.csv",
    "bytes": 6199,
    "etag": "01adfe00d33a63ea1dbcd6a8d1fcbea6",
    "checksum": "CRC64NVME:YW4iXMabMvM=",
    "file_name": "users.csv",
    "source_uri": "users.csv",
    "source_bytes": 7000,
    "source_checksum": "CRC64NVME:YW4iXMabMvM=",
}
EXPORT = {
    "export_id": EXPORT_ID,
    "request": {"connection": "gio", "export": {"kind": "growingio.segment_users"}, "metadata": {"order": "42"}},
    "state": {
        "phase": "succeeded",
        "operation_id": "VGFn",
        "stage": "FINISH",
        "stored": [STORED],
        "manifest_uri": f"s3://exports/{EXPORT_ID}/_manifest.json",
        "finished_at": "2026-11-30T22:57:18.630Z",
    },
    "created_at": "2026-11-30T22:57:18.101Z",
    "updated_at": "2026-11-30T22:57:18.630Z",
    "due_at": "2026-11-30T22:57:18.489Z",
    "counters": {"polls": 2, "submits": 1, "retries": 0},
    "set_going_at": "2026-11-30T22:57:18.101Z",
}
TRACE = b'{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
LINE = st.text(st.characters(codec="utf-8", exclude_characters="\n\x01")).map(str.encode)


def _past(export: Mapping[str, object] = EXPORT, trace: bytes = TRACE) -> Past:
    return unpack(EXPORT_ID, HEADER + pack_body(EXPORT_ID, json.dumps(export).encode(), (), trace=trace))


@given(LINE, st.lists(LINE, max_size=5), LINE, LINE)
def test_everything_that_is_packed_is_unpacked_again(
    state: bytes, timeline: list[bytes], trace: bytes, status: bytes
) -> None:
    packed = pack_body(EXPORT_ID, state, timeline, trace=trace, status=status)

    found = unpack(EXPORT_ID, HEADER + packed)

    assert (found.state, list(found.timeline), found.trace, found.status) == (state, timeline, trace, status)


def test_header_is_read_without_the_body() -> None:
    header = read_header(HEADER + b"whatever")

    assert (header.phase, header.generation, header.step, header.number) == ("succeeded", 1, 4, 2147483648)
    assert (header.saved, header.until_ms, header.requested_by) == ("260721719547162", 1796079438101, "library")
    assert header.text == HEADER
    assert header.text.count(b"\n") == HEADER_LINES


@given(st.binary(max_size=200), st.integers(0, 400))
def test_damaged_record_is_refused_or_read_and_raises_nothing_else(noise: bytes, cut: int) -> None:
    packed = HEADER + pack_body(EXPORT_ID, json.dumps(EXPORT).encode(), [b"{}"])
    for value in (noise, HEADER + noise, packed[:cut], packed[:cut] + noise + packed[cut:]):
        try:
            unpack(EXPORT_ID, value)
        except UnreadablePastError:
            continue


def test_body_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -13)
    bomb = b"1" + compressor.compress(bytes(1 << 20)) + compressor.flush()
    monkeypatch.setattr(past, "BODY_MAX_BYTES", 1 << 19)

    with pytest.raises(UnreadablePastError, match="too large"):
        unpack(EXPORT_ID, HEADER + bomb)


def test_body_of_a_later_dictionary_is_refused() -> None:
    with pytest.raises(UnreadablePastError, match="newer version"):
        unpack(EXPORT_ID, HEADER + b"9abc")


def test_record_with_one_file_takes_few_bytes() -> None:
    assert len(pack_body(EXPORT_ID, json.dumps(EXPORT, separators=(",", ":")).encode(), ())) < 300


def test_status_has_what_the_state_and_the_request_have() -> None:
    status = status_of_past(_past())

    assert (status.phase, status.platform_stage, status.operation_id) == ("succeeded", "FINISH", "VGFn")
    assert (status.progress.bytes_done, status.progress.files_total, status.progress.percent) == (7000, 1, 100.0)
    assert status.request == EXPORT["request"] == request_of_past(_past())
    assert (status.requested_by, status.trace_id) == ("library", "0af7651916cd43dd8448eb211c80319c")
    assert status.metadata == {"order": "42"}


def test_event_has_the_id_of_its_generation_and_the_trace() -> None:
    event = event_of_past(_past(), "exports")

    assert (event.id, event.type, event.source) == (f"{EXPORT_ID}.1", "export.succeeded", "/export-worker/exports")
    assert event.traceparent == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert event.data.trace_id is None


@pytest.mark.parametrize("damaged", [{}, {"state": {}}, {"state": [], "request": 1}, EXPORT | {"request": []}])
def test_status_of_a_damaged_state_is_refused(damaged: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"damaged|validation error|instance"):
        status_of_past(_past(damaged))
