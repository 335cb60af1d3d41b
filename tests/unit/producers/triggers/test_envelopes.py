"""Envelopes of SNS and EventBridge: which messages are taken out of them, and which are no envelopes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_producers.triggers.cloudevents import parse_cloudevent
from export_producers.triggers.envelopes import unwrapped
from export_producers.triggers.message import Message, UnusableMessageError

EVENT = {"specversion": "1.0", "id": "e", "source": "/s", "type": "t", "data": {"n": 1}}
SNS = {
    "Type": "Notification",
    "MessageId": "sns-1",
    "TopicArn": "arn:aws:sns:eu-west-1:1:topic",
    "Message": json.dumps(EVENT),
    "Timestamp": "2026-11-30T10:00:00.000Z",
    "SignatureVersion": "1",
    "Signature": "EXAMPLE",
    "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/cert.pem",
    "UnsubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe",
    "MessageAttributes": {
        "traceparent": {"Type": "String", "Value": "p"},
        "bytes": {"Type": "Binary", "Value": "AAA="},
        "odd": "x",
    },
}
EVENTBRIDGE = {
    "version": "0",
    "id": "eb-1",
    "detail-type": "export.succeeded",
    "source": "export-worker",
    "account": "123456789012",
    "time": "2026-11-30T10:00:00Z",
    "region": "eu-west-1",
    "resources": [],
    "detail": EVENT,
}
TOPIC = "arn:aws:sns:eu-west-1:1:topic"


def message(body: Any, **headers: str) -> Message:
    return Message("sqs-1", json.dumps(body).encode(), headers)


def test_notification_of_sns_becomes_its_message_with_its_attributes() -> None:
    found = unwrapped(message(SNS, own="1"), as_event=True)
    assert json.loads(found.body) == EVENT
    assert found.headers == {"own": "1", "traceparent": "p"}
    assert (found.id, found.envelope) == ("sqs-1", ("sns", TOPIC, "sns-1"))


def test_notification_without_an_id_is_identified_by_its_message_in_the_queue() -> None:
    found = unwrapped(message({"Type": "Notification", "Message": json.dumps(EVENT)}), as_event=True)
    assert (json.loads(found.body), found.id, found.envelope) == (EVENT, "sqs-1", ())


def test_event_of_eventbridge_becomes_its_detail() -> None:
    found = unwrapped(message(EVENTBRIDGE), as_event=True)
    assert json.loads(found.body) == EVENT
    assert found.envelope == ("eventbridge", "export-worker", "eb-1")


def test_detail_keeps_its_length_in_bytes() -> None:
    """The limits of requests and messages count bytes."""
    detail = EVENT | {"data": "用户" * 1000}
    message = Message("m", json.dumps(EVENTBRIDGE | {"detail": detail}, ensure_ascii=False).encode())
    assert unwrapped(message, as_event=True).body == json.dumps(detail, ensure_ascii=False).encode()


def test_event_of_eventbridge_in_a_notification_of_sns_becomes_its_detail() -> None:
    found = unwrapped(message(SNS | {"Message": json.dumps(EVENTBRIDGE)}), as_event=False)
    assert json.loads(found.body) == EVENT
    assert found.envelope == ("eventbridge", "export-worker", "eb-1")


@pytest.mark.parametrize("detail", [{"n": 1}, {"id": "7"}, [1], None, "text"])
def test_detail_that_is_no_cloudevent_is_the_data_of_one(detail: Any) -> None:
    body = EVENTBRIDGE | {"detail": detail}
    assert parse_cloudevent(unwrapped(message(body), as_event=True)) == {
        "specversion": "1.0",
        "id": "eb-1",
        "source": "export-worker",
        "type": "export.succeeded",
        "time": "2026-11-30T10:00:00Z",
        "data": detail,
    }
    assert json.loads(unwrapped(message(body), as_event=False).body) == detail


@pytest.mark.parametrize(
    "given_message",
    [
        message(EVENT),
        message(EVENT | {"detail-type": "x", "detail": {}}),
        message({"detail-type": "x", "detail": {}}),
        message({"id": "1", "source": "s", "detail-type": "x"}),
        message({"id": 1, "source": "s", "detail-type": "x", "detail": {}}),
        message(SNS | {"Type": "Other"}),
        message(SNS | {"Message": {"n": 1}}),
        message([SNS]),
        message(SNS, ce_id="1"),
        message(EVENTBRIDGE, ce_id="1"),
        message(EVENT | {"Type": "Notification"}),
        Message("1", b'{"Message"'),
        Message("1", b'\xff "Message"'),
        Message("1", b'"Message"' + b"[" * 100_000),
        Message("1", b""),
    ],
)
def test_message_in_no_envelope_is_returned_unchanged(given_message: Message) -> None:
    assert unwrapped(given_message, as_event=True) is given_message
    assert unwrapped(given_message, as_event=False) is given_message


@pytest.mark.parametrize("kind", ["SubscriptionConfirmation", "UnsubscribeConfirmation"])
def test_confirmation_of_sns_is_refused_with_what_to_do(kind: str) -> None:
    with pytest.raises(UnusableMessageError, match=f"is a {kind} of SNS.*confirm the subscription to {TOPIC}"):
        unwrapped(message(SNS | {"Type": kind, "Message": "You have chosen to subscribe"}), as_event=True)


VALUES = st.recursive(
    st.none() | st.booleans() | st.text(), lambda item: st.lists(item) | st.dictionaries(st.text(), item)
)


@given(
    base=st.sampled_from([SNS, EVENTBRIDGE]),
    changes=st.dictionaries(st.sampled_from(sorted({*SNS, *EVENTBRIDGE})), VALUES, max_size=4),
    as_event=st.booleans(),
)
def test_arbitrary_envelope_is_unwrapped_or_refused_without_any_other_error(
    base: dict[str, Any], changes: dict[str, Any], *, as_event: bool
) -> None:
    try:
        found = unwrapped(message(base | changes), as_event=as_event)
    except UnusableMessageError:
        return
    assert isinstance(found.body, bytes)
    assert all(isinstance(value, str) for value in found.headers.values())
