"""The trace context of a service's request."""

import pytest
from pydantic import ValidationError

from export_worker.contract.trace import TraceContext

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_context_of_valid_headers_is_read() -> None:
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
def test_invalid_traceparent_gives_no_context(parent: str) -> None:
    assert TraceContext.of({"traceparent": parent, "tracestate": "a=b"}) is None
    with pytest.raises(ValidationError):
        TraceContext(traceparent=parent)


@pytest.mark.parametrize("state", ["a=b\r\nset-cookie: x", "a=é", "a=\ud800", 5, ["a=b"], "a" * 10_000, ""])
def test_invalid_tracestate_is_left_out_and_the_traceparent_kept(state: object) -> None:
    assert TraceContext.of({"traceparent": PARENT, "tracestate": state}) == TraceContext(traceparent=PARENT)


@pytest.mark.parametrize("parent", [None, 5, {"a": 1}, "\ud800", PARENT * 1000, f"{PARENT}\r\nset-cookie: x"])
def test_malformed_traceparent_gives_no_context(parent: object) -> None:
    assert TraceContext.of({"traceparent": parent, "tracestate": "a=b"}) is None


def test_headers_without_traceparent_give_no_context() -> None:
    assert TraceContext.of({"tracestate": "a=b"}) is None
