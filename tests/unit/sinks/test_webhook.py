"""A webhook: signatures as Standard Webhooks' own library reads them, and what each answer means."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from export_worker.sinks.base import SinkError, SinkGoneError
from export_worker.sinks.webhook import Webhook, retry_after_s, signature, signing_key

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Place:
    """A receiver; `answer` says what it does."""

    url: str = ""
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answer: Answer | None = None


@asynccontextmanager
async def place(status: int = 204, headers: dict[str, str] | None = None) -> AsyncIterator[Place]:
    here = Place()

    async def take(request: web.Request) -> web.StreamResponse:
        here.calls.append((dict(request.headers), await request.read()))
        return await here.answer(request) if here.answer else web.Response(status=status, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    here.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield here
    finally:
        await runner.cleanup()


async def deliver(url: str, *secrets: str, allow_private: bool = True, timeout_s: float = 20.0) -> None:
    keys = [signing_key(secret) for secret in secrets or (SECRET,)]
    sink = Webhook(url, keys, timeout_s=timeout_s, allow_private=allow_private)
    try:
        await sink.deliver("e1.1", '{"a":"数"}')
    finally:
        await sink.close()


async def refusal(url: str, *, allow_private: bool = True, timeout_s: float = 20.0) -> SinkError:
    with pytest.raises(SinkError) as caught:
        await deliver(url, allow_private=allow_private, timeout_s=timeout_s)
    return caught.value


async def test_the_library_of_standard_webhooks_verifies_a_delivery() -> None:
    async with place() as here:
        await deliver(here.url)
    ((headers, body),) = here.calls
    assert Verifier(SECRET).verify(body, headers) == {"a": "数"}
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(body + b" ", headers)
    names = {name.lower() for name in headers}
    assert {"webhook-id", "webhook-timestamp", "webhook-signature"} <= names


async def test_while_a_secret_is_changed_both_verify() -> None:
    async with place() as here:
        await deliver(here.url, SECRET, OLD_SECRET)
    ((headers, body),) = here.calls
    for secret in (SECRET, OLD_SECRET):
        assert Verifier(secret).verify(body, headers) == {"a": "数"}
    with pytest.raises(WebhookVerificationError):
        Verifier("whsec_" + "b" * 32).verify(body, headers)


@given(key=st.binary(min_size=1, max_size=80), body=st.text(max_size=200), event_id=st.text("abc.0123", min_size=1))
def test_any_signature_verifies(key: bytes, body: str, event_id: str) -> None:
    now = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": event_id,
        "webhook-timestamp": str(now),
        "webhook-signature": signature([key], event_id, now, body.encode()),
    }
    Verifier(key).verify(body, headers, json_parse=False)


@pytest.mark.parametrize("secret", ["whsec_", "", "whsec_???", "kein base64"])
def test_a_secret_that_is_none(secret: str) -> None:
    with pytest.raises(ValueError):
        signing_key(secret)


def test_a_secret_without_padding_is_read_as_the_library_reads_it() -> None:
    assert signing_key("whsec_YWI") == signing_key("YWI=") == b"ab"


@pytest.mark.parametrize("status", [300, 400, 401, 404, 429, 500, 503])
async def test_any_other_answer_means_again(status: int) -> None:
    async with place(status) as here:
        error = await refusal(here.url)
    assert not isinstance(error, SinkGoneError)
    assert f"answered {status}" in str(error)


async def test_410_means_never_again() -> None:
    async with place(410) as here:
        assert isinstance(await refusal(here.url), SinkGoneError)


async def test_a_redirect_is_not_followed() -> None:
    async with place() as other, place(307, {"Location": other.url}) as here:
        assert "redirects are not followed" in str(await refusal(here.url))
    assert other.calls == []


async def test_retry_after_is_told_on() -> None:
    async with place(503, {"Retry-After": "120"}) as here:
        assert (await refusal(here.url)).retry_after_s == 120


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("3600", 3600),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999", None),
    ],
)
def test_retry_after_in_both_forms(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, NOW) == seconds


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "[fe80::1]", "[::ffff:127.0.0.1]"]
)
async def test_an_inner_address_is_refused_unless_it_is_allowed(address: str) -> None:
    async with place() as here:
        port = here.url.split(":")[2].partition("/")[0]
        error = await refusal(f"http://{address}:{port}/hook", allow_private=False)
    assert "allow_private is the mend" in str(error)
    assert here.calls == []


async def test_a_slow_receiver_is_given_up_in_time() -> None:
    async with place() as here:

        async def sleep(_: web.Request) -> web.StreamResponse:
            await asyncio.sleep(60)
            return web.Response()

        here.answer = sleep
        assert "did not answer in time" in str(await refusal(here.url, timeout_s=0.3))


async def test_an_endless_answer_is_not_read() -> None:
    async with place() as here:

        async def babble(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b"x" * 65536)

        here.answer = babble
        await deliver(here.url)
