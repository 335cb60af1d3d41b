"""A webhook, signed as Standard Webhooks says (github.com/standard-webhooks/standard-webhooks, spec 1.0)."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from export_worker.egress.address_policy import AddressPolicy
from export_worker.egress.connector import AddressRefusedError, PolicyConnector
from export_worker.sinks.base import SinkError, SinkGoneError

ANSWER_MAX_BYTES = 16 * 1024
"""Of an answer that is read so that its connection can serve again; what it says is of no use."""
KEY_PREFIX = "whsec_"


def signing_key(secret: str) -> bytes:
    """The key behind a secret: base64, with or without `whsec_` before it.

    Raises:
        ValueError: It is no such secret.
    """
    try:
        # Whoever made the secret may have left its padding away.
        text = secret.removeprefix(KEY_PREFIX)
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError("must be base64, as in whsec_…") from None
    if not key:
        raise ValueError("must not be empty")
    return key


def signature(keys: Sequence[bytes], event_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: one signature a key, so that a receiver may know either."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds that a header `Retry-After` asks to wait (RFC 9110, 10.2.3: seconds or a date); None if it says none."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())


class Webhook:
    """Posts each event to one address.

    Args:
        url: Where to; never shown, for there may be a secret in it.
        keys: What to sign with, the newest first.
        timeout_s: For one delivery.
        allow_private: The address may lead into a private network.
        clock: The time, with a zone.
    """

    def __init__(
        self,
        url: str,
        keys: Sequence[bytes],
        *,
        timeout_s: float,
        allow_private: bool = False,
        at_once: int = 8,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._url = URL(url)
        self._keys = tuple(keys)
        self._clock = clock
        self._host = urlsplit(url).hostname or ""
        # Whatever the configuration's own host resolves to is allowed only if it says so.
        policy = AddressPolicy(hosts=(self._host,) if allow_private else ())
        self._session = aiohttp.ClientSession(
            connector=PolicyConnector(policy, limit=at_once),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def deliver(self, event_id: str, event: str) -> None:
        """Post one event; any 2xx means that it was taken."""
        body, timestamp = event.encode(), int(self._clock().timestamp())
        headers = {
            "content-type": "application/cloudevents+json; charset=utf-8",
            "user-agent": "export-worker",
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._keys, event_id, timestamp, body),
        }
        response = await self._ask("POST", body, headers)
        self._judge(response.status, response.headers.get("Retry-After"))

    async def check(self) -> str:
        """Ask for nothing (HEAD): a receiver that takes nothing but events refuses that (4xx or 501), and is there."""
        status = (await self._ask("HEAD", None, {"user-agent": "export-worker"})).status
        if 300 <= status < 400 or status == 410 or (status >= 500 and status != 501):
            self._judge(status, None)
        return f"{self._host} answers"

    async def _ask(self, method: str, body: bytes | None, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """One request; its answer, read and closed.

        Raises:
            SinkError: There was none.
        """
        try:
            async with self._session.request(
                method, self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                await _drain(response)
                return response
        except AddressRefusedError:
            message = f"{self._host} leads to an address that is not public; allow_private is the mend"
            raise SinkError(message) from None
        except TimeoutError:
            raise SinkError(f"{self._host} did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            # Its text may hold the address, and that a secret.
            raise SinkError(f"{self._host} cannot be reached ({type(error).__name__})") from None

    def _judge(self, status: int, retry_after: str | None) -> None:
        if 200 <= status < 300:
            return
        if status == 410:
            raise SinkGoneError(f"{self._host} answered 410: it wants no more events")
        if 300 <= status < 400:
            raise SinkError(f"{self._host} answered {status}: redirects are not followed; name the last address")
        raise SinkError(f"{self._host} answered {status}", retry_after_s=retry_after_s(retry_after, self._clock()))

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read what is small; a longer answer is cut off with its connection."""
    left = ANSWER_MAX_BYTES
    while left > 0 and (chunk := await response.content.read(left)):
        left -= len(chunk)
    if left <= 0:
        response.close()
