"""Parsing of messages: requests, CloudEvents, idempotency keys, traces, and the reasons for unusable messages."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_producers.triggers.message import BODY_MAX_BYTES, Message, UnusableMessageError, parse_message, trace_of
from export_producers.triggers.template import Template

REQUEST: dict[str, Any] = {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "t"}}
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/segments",
    "type": "segment.ready",
    "data": {"project": 3, "cluster": "c1"},
}
TEMPLATE = Template(
    "triggers.t.request",
    {
        "connection": "ta",
        "export": {
            "kind": "thinkingdata.cluster_users",
            "project_id": "{data.project}",
            "cluster_name": "{data.cluster}",
        },
        "metadata": {"from": "{type}"},
    },
)


def message(body: Any, message_id: str = "m-1", **headers: str) -> Message:
    return Message(message_id, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)


def reason(given: Message, template: Template | None = None) -> str:
    with pytest.raises(UnusableMessageError) as caught:
        parse_message("t", given, template)
    return str(caught.value)


def test_message_id_becomes_the_idempotency_key_unless_the_request_has_one() -> None:
    assert parse_message("t", message(REQUEST), None).idempotency_key == "t/m-1"
    own = message(REQUEST | {"idempotency_key": "own"}, "")
    assert parse_message("t", own, None).idempotency_key == "own"
    assert "has no message id" in reason(message(REQUEST, ""))


def test_structured_cloudevent_is_rendered_with_the_types_of_its_values() -> None:
    request = parse_message("t", message(EVENT), TEMPLATE)
    assert request.idempotency_key == "t//segments#e-1"
    assert request.model_dump(mode="json")["export"]["project_id"] == 3
    assert request.metadata == {"from": "segment.ready"}


@pytest.mark.parametrize("prefix", ["ce-", "ce_", "CE-", "cloudEvents:", "cloudEvents_"])
def test_binary_cloudevent_makes_the_same_request_as_a_structured_one(prefix: str) -> None:
    attributes = {f"{prefix}{name}": value for name, value in EVENT.items() if name != "data"}
    assert parse_message("t", message(EVENT["data"], **attributes), TEMPLATE) == parse_message(
        "t", message(EVENT), TEMPLATE
    )


def test_idempotency_key_of_a_long_message_id_is_a_digest() -> None:
    keys = {parse_message("t", message(REQUEST, "x" * 300 + end), None).idempotency_key for end in "abaa"}
    assert len(keys) == 2
    assert all(key is not None and len(key) <= 255 for key in keys)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is n"),
        ([1], "the body is not a JSON object"),
        ({"id": "1"}, "specversion, source, type must be a non-empty string"),
        (EVENT | {"id": 5}, "id must be a non-empty string"),
        (EVENT | {"data": {"project": "3", "cluster": "c"}}, "export.project_id: must be a valid integer"),
        (EVENT | {"data": {}}, "export.project_id: is required"),
        (EVENT | {"data": None}, "export.project_id: is required"),
    ],
)
def test_unusable_event_is_refused_with_the_reason(body: Any, expected: str) -> None:
    assert expected in reason(message(body), TEMPLATE)


def test_body_above_the_size_limit_is_refused_unparsed() -> None:
    assert "has more than" in reason(message(b" " * (BODY_MAX_BYTES + 1)), TEMPLATE)


@given(body=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: json.dumps(text).encode()))
def test_arbitrary_body_is_refused_with_a_reason_and_no_other_error(body: bytes) -> None:
    for template in (None, TEMPLATE):
        assert reason(message(body), template)


@given(event=st.fixed_dictionaries({name: st.text() for name in ("specversion", "id", "source", "type")}))
def test_cloudevent_without_data_is_refused(event: dict[str, str]) -> None:
    assert reason(message(event), TEMPLATE)


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "given_message",
    [
        message(REQUEST, traceparent=PARENT),
        message(REQUEST, TraceParent=PARENT),
        message(EVENT["data"], ce_id="1", ce_traceparent=PARENT),
        message(EVENT | {"traceparent": PARENT}),
    ],
)
def test_trace_is_read_from_a_header_or_from_the_cloudevent_extension(given_message: Message) -> None:
    trace = trace_of(given_message)
    assert trace is not None
    assert trace.traceparent == PARENT


@pytest.mark.parametrize(
    "given_message",
    [message(EVENT), message(EVENT, traceparent="x"), message(EVENT | {"traceparent": 5}), message(b"")],
)
def test_missing_or_invalid_trace_is_none(given_message: Message) -> None:
    assert trace_of(given_message) is None
