"""The webhook sink: the library of Standard Webhooks verifies its signatures, and each answer has its meaning."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from export_worker.credentials import Redactor
from export_worker.secrets.secret import Secret
from export_worker.sinks.base import SinkDisabledError, SinkError
from export_worker.sinks.webhook import KEY_MIN_BYTES, Webhook, retry_after_s, signature, signing_key

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """A receiver of webhooks; `answer` replaces its usual answer."""

    url: str = ""
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answer: Answer | None = None


@asynccontextmanager
async def receiver(status: int = 204, headers: dict[str, str] | None = None) -> AsyncIterator[Receiver]:
    hook = Receiver()

    async def take(request: web.Request) -> web.StreamResponse:
        hook.calls.append((dict(request.headers), await request.read()))
        return await hook.answer(request) if hook.answer else web.Response(status=status, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield hook
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


async def test_delivery_is_verified_by_library_of_standard_webhooks() -> None:
    async with receiver() as hook:
        await deliver(hook.url)
    ((headers, body),) = hook.calls
    assert Verifier(SECRET).verify(body, headers) == {"a": "数"}
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(body + b" ", headers)
    names = {name.lower() for name in headers}
    assert {"webhook-id", "webhook-timestamp", "webhook-signature"} <= names


async def test_delivery_with_two_secrets_is_verified_by_each() -> None:
    async with receiver() as hook:
        await deliver(hook.url, SECRET, OLD_SECRET)
    ((headers, body),) = hook.calls
    for secret in (SECRET, OLD_SECRET):
        assert Verifier(secret).verify(body, headers) == {"a": "数"}
    with pytest.raises(WebhookVerificationError):
        Verifier("whsec_" + "b" * 32).verify(body, headers)


@given(key=st.binary(min_size=1, max_size=80), body=st.text(max_size=200), event_id=st.text("abc.0123", min_size=1))
def test_any_signature_is_verified_by_library_of_standard_webhooks(key: bytes, body: str, event_id: str) -> None:
    now = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": event_id,
        "webhook-timestamp": str(now),
        "webhook-signature": signature([key], event_id, now, body.encode()),
    }
    Verifier(key).verify(body, headers, json_parse=False)


@pytest.mark.parametrize("secret", ["whsec_", "", "whsec_???", "kein base64"])
def test_signing_key_refuses_text_that_is_no_secret(secret: str) -> None:
    with pytest.raises(ValueError):
        signing_key(secret)


def test_signing_key_accepts_secret_without_prefix_or_padding() -> None:
    assert signing_key("whsec_YWI") == signing_key("YWI=") == b"ab"


def test_key_that_is_shorter_than_the_standard_allows_is_refused() -> None:
    assert signing_key(SECRET, min_bytes=KEY_MIN_BYTES)
    short = b64encode(b"k" * 23).decode()
    with pytest.raises(ValueError, match="must have at least 24 bytes before base64, not 23; make one with: openssl"):
        signing_key(short, min_bytes=KEY_MIN_BYTES)


@pytest.mark.parametrize("status", [300, 400, 401, 404, 429, 500, 503])
async def test_delivery_with_error_status_can_be_retried(status: int) -> None:
    async with receiver(status) as hook:
        error = await refusal(hook.url)
    assert not isinstance(error, SinkDisabledError)
    assert f"answered {status}" in str(error)


async def test_delivery_answered_410_disables_sink() -> None:
    async with receiver(410) as hook:
        assert isinstance(await refusal(hook.url), SinkDisabledError)


async def test_delivery_does_not_follow_redirect() -> None:
    async with receiver() as other, receiver(307, {"Location": other.url}) as hook:
        assert "redirects are not followed" in str(await refusal(hook.url))
    assert other.calls == []


async def test_delivery_error_carries_retry_after() -> None:
    async with receiver(503, {"Retry-After": "120"}) as hook:
        assert (await refusal(hook.url)).retry_after_s == 120


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
def test_retry_after_is_parsed_as_seconds_or_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, NOW) == seconds


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "[fe80::1]", "[::ffff:127.0.0.1]"]
)
async def test_delivery_to_private_address_is_refused_unless_allowed(address: str) -> None:
    async with receiver() as hook:
        port = hook.url.split(":")[2].partition("/")[0]
        error = await refusal(f"http://{address}:{port}/hook", allow_private=False)
    assert "set allow_private = true" in str(error)
    assert hook.calls == []


async def test_delivery_to_slow_receiver_ends_after_timeout() -> None:
    async with receiver() as hook:

        async def sleep(_: web.Request) -> web.StreamResponse:
            await asyncio.sleep(60)
            return web.Response()

        hook.answer = sleep
        assert "did not answer in time" in str(await refusal(hook.url, timeout_s=0.3))


async def test_delivery_does_not_read_endless_answer() -> None:
    async with receiver() as hook:

        async def answer_without_end(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b"x" * 65536)

        hook.answer = answer_without_end
        await deliver(hook.url)


async def test_exchanged_signing_key_signs_the_next_events(tmp_path: Path) -> None:
    first, second = ("whsec_" + b64encode(letter * 24).decode() for letter in (b"a", b"b"))
    (tmp_path / "key").write_text(first)
    redactor, now_s = Redactor(), 0.0
    secret = Secret(SecretStr(f"file:{tmp_path}/key"), "sinks.hook.secret", redactor, clock=lambda: now_s)
    async with receiver() as hook:
        sink = Webhook(hook.url, [secret], timeout_s=20.0, allow_private=True)
        await sink.deliver("e1.1", "{}")
        (tmp_path / "key").write_text(second)
        now_s = 1.0
        await sink.deliver("e1.2", "{}")
        await sink.close()
    for key, (headers, body) in zip((first, second), hook.calls, strict=True):
        Verifier(key).verify(body, headers)
    assert redactor.text(second) == "***"
