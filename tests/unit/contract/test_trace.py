"""The trace context that a service hands over."""

import pytest
from pydantic import ValidationError

from export_worker.contract.trace import TraceContext

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_what_headers_hold_is_taken() -> None:
    assert TraceContext.of({"traceparent": PARENT, "tracestate": "a=b"}) == TraceContext(
        traceparent=PARENT, tracestate="a=b"
    )
    assert TraceContext.of({"traceparent": PARENT, "tracestate": "a" * 513}) == TraceContext(traceparent=PARENT)


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "x",
        PARENT.upper(),
        PARENT.replace("00-", "ff-", 1),
        PARENT + "-",
        PARENT + "\n",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
    ],
)
def test_what_is_invalid_is_left_out(parent: str) -> None:
    assert TraceContext.of({"traceparent": parent, "tracestate": "a=b"}) is None
    with pytest.raises(ValidationError):
        TraceContext(traceparent=parent)


@pytest.mark.parametrize("state", ["a=b\r\nset-cookie: x", "a=é", "a=\ud800", 5, ["a=b"], "a" * 10_000, ""])
def test_a_state_that_is_invalid_is_left_out_alone(state: object) -> None:
    assert TraceContext.of({"traceparent": PARENT, "tracestate": state}) == TraceContext(traceparent=PARENT)


@pytest.mark.parametrize("parent", [None, 5, {"a": 1}, "\ud800", PARENT * 1000, f"{PARENT}\r\nset-cookie: x"])
def test_what_is_no_traceparent_is_none(parent: object) -> None:
    assert TraceContext.of({"traceparent": parent, "tracestate": "a=b"}) is None


def test_nothing_is_no_context() -> None:
    assert TraceContext.of({"tracestate": "a=b"}) is None
