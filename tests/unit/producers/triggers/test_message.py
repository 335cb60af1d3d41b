"""Parsing of messages: requests, CloudEvents, identities, traces, and the reasons for unusable messages."""

import base64
import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_producers.identities import MessageIdentity
from export_producers.triggers.cloudevents import parse_cloudevent
from export_producers.triggers.message import BODY_MAX_BYTES, Message, UnusableMessageError
from export_producers.triggers.parsing import parse_message, trace_of
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


def test_message_is_identified_by_its_id_unless_the_request_has_an_idempotency_key() -> None:
    parsed = parse_message("t", message(REQUEST), None)
    assert parsed.identity == MessageIdentity("t", ("message", "m-1"), "m-1")
    assert parsed.request.idempotency_key is None
    own = parse_message("t", message(REQUEST | {"idempotency_key": "own"}, ""), None)
    assert (own.request.idempotency_key, own.identity) == ("own", None)
    assert "has no message id" in reason(message(REQUEST, ""))


def test_different_identities_never_have_the_same_text() -> None:
    """Slashes and `#` may be in names, sources and ids."""
    identities = [
        MessageIdentity("a/b", ("message", "c"), ""),
        MessageIdentity("a", ("message", "b/c"), ""),
        MessageIdentity("a", ("event", "s#x", "y"), ""),
        MessageIdentity("a", ("event", "s", "x#y"), ""),
        MessageIdentity("a", ("message", "1"), ""),
        MessageIdentity("a", ("message", "1"), "", published_ms=1),
        MessageIdentity("a", ("message", "1", "1"), ""),
        MessageIdentity("a", ("event", "1"), ""),
        MessageIdentity("a", ("message", "\ud800"), ""),
        MessageIdentity("a", ("message", "\\ud800"), ""),
    ]
    assert len({identity.text for identity in identities}) == len(identities)


@given(names=st.lists(st.text(), min_size=1, max_size=4), others=st.lists(st.text(), min_size=1, max_size=4))
def test_text_of_an_identity_depends_on_every_part(names: list[str], others: list[str]) -> None:
    first, second = (MessageIdentity(given[0], tuple(given[1:]), "") for given in (names, others))
    assert (first.text == second.text) is (names == others)


def test_structured_cloudevent_is_rendered_with_the_types_of_its_values() -> None:
    parsed = parse_message("t", message(EVENT), TEMPLATE)
    request = parsed.request
    assert parsed.identity == MessageIdentity("t", ("event", "/segments", "e-1"), "/segments#e-1")
    assert request.model_dump(mode="json")["export"]["project_id"] == 3
    assert request.metadata == {"from": "segment.ready"}


@pytest.mark.parametrize("prefix", ["ce-", "ce_", "CE-", "cloudEvents:", "cloudEvents_"])
def test_binary_cloudevent_makes_the_same_request_as_a_structured_one(prefix: str) -> None:
    attributes = {f"{prefix}{name}": value for name, value in EVENT.items() if name != "data"}
    assert parse_message("t", message(EVENT["data"], **attributes), TEMPLATE) == parse_message(
        "t", message(EVENT), TEMPLATE
    )


def test_earlier_key_is_the_one_that_version_0_1_gave_the_message() -> None:
    keys = [MessageIdentity("t", (), given).earlier_key for given in ("m-1", "x" * 253, "x" * 254)]
    assert keys == ["t/m-1", "t/" + "x" * 253, f"t/sha256:{sha256(b'x' * 254).hexdigest()}"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is n"),
        ([1], "the body is not a JSON object"),
        ({"id": "1"}, "specversion, source, type must be a non-empty string"),
        (EVENT | {"id": 5}, "id must be a non-empty string"),
        (EVENT | {"data": {"project": "3", "cluster": "c"}}, 'export.project_id: must be a whole number, not "3"'),
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


def event_with_bytes(content: bytes, **more: Any) -> Message:
    event = {name: value for name, value in EVENT.items() if name != "data"}
    return message(event | {"data_base64": base64.b64encode(content).decode()} | more)


JSON_DATA = json.dumps(EVENT["data"]).encode()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"datacontenttype": None},
        {"datacontenttype": "application/json"},
        {"datacontenttype": "Application/JSON; charset=utf-8"},
        {"datacontenttype": "application/vnd.segments+json"},
        {"datacontenttype": "text/json", "data": None},
    ],
)
def test_data_base64_is_read_as_json(more: dict[str, Any]) -> None:
    assert parse_message("t", event_with_bytes(JSON_DATA, **more), TEMPLATE) == parse_message(
        "t", message(EVENT), TEMPLATE
    )


@pytest.mark.parametrize(
    ("data", "content_type", "expected"),
    [
        ("Grüße".encode(), "text/plain", "Grüße"),
        (JSON_DATA, "application/jsonp", JSON_DATA.decode()),
        (b"\xff\x00", "application/octet-stream", None),
        (b"", "application/json", None),
        (b"", "text/plain", ""),
        (b"5", "application/json", 5),
    ],
)
def test_data_base64_of_another_type_is_text_if_it_is_utf_8(data: bytes, content_type: str, expected: Any) -> None:
    event = parse_cloudevent(event_with_bytes(data, datacontenttype=content_type))
    assert event.get("data") == expected
    assert "data_base64" not in event


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"data_base64": "eyJhIjogMX0"}, "data_base64 is not base64"),
        ({"data_base64": "eyJ_IjogMX0="}, "data_base64 is not base64"),
        ({"data_base64": {"a": 1}}, "data_base64 is not base64"),
        ({"data_base64": "ü"}, "data_base64 is not base64"),
        ({"data_base64": "eyI="}, "is not JSON"),
        ({"data": {"project": 1}}, "both data and data_base64"),
    ],
)
def test_invalid_data_base64_is_refused_with_the_reason(more: dict[str, Any], expected: str) -> None:
    assert expected in reason(event_with_bytes(JSON_DATA, **more), TEMPLATE)
