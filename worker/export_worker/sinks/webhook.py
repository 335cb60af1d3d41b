"""A sink that posts signed webhooks (Standard Webhooks 1.0: github.com/standard-webhooks/standard-webhooks)."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from export_worker.credentials import Redactor
from export_worker.egress.address_policy import AddressPolicy
from export_worker.egress.connector import AddressRefusedError
from export_worker.egress.network import Network
from export_worker.egress.network_settings import NetworkSettings
from export_worker.secrets.secret import Secret
from export_worker.sinks.base import EventTooLargeError, SinkDisabledError, SinkError, SinkUnconnectedError

ANSWER_MAX_BYTES = 16 * 1024
"""An answer is read up to this size, so that its connection can be reused. Its content is ignored."""
KEY_PREFIX = "whsec_"
KEY_MIN_BYTES = 24
"""Standard Webhooks, "Signature scheme": a key has 24 to 64 bytes. A shorter one could be guessed."""


def signing_key(secret: str, *, min_bytes: int = 1) -> bytes:
    """Returns the key in a secret: base64, with or without the prefix `whsec_`.

    Raises:
        ValueError: The secret is not base64, or is empty, or its key is too short.
    """
    try:
        # Some generators of secrets omit the padding.
        text = secret.removeprefix(KEY_PREFIX)
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError("must be base64, as in whsec_…") from None
    if not key:
        raise ValueError("must not be empty")
    if len(key) < min_bytes:
        advice = f"make one with: openssl rand -base64 {KEY_MIN_BYTES}"
        raise ValueError(f"must have at least {min_bytes} bytes before base64, not {len(key)}; {advice}")
    return key


def signature(keys: Sequence[bytes], event_id: str, timestamp: int, body: bytes) -> str:
    """Returns the header `webhook-signature`: one signature for each key. A receiver needs only one of the keys."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Returns the seconds that a header `Retry-After` asks to wait (RFC 9110, 10.2.3: seconds or a date), or None."""
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
        url: The receiver's address. It may contain a secret, so no message shows it.
        keys: Signing keys, the newest first: as bytes, or as secrets that are followed when they are exchanged.
        timeout_s: For one delivery.
        allow_private: Allow addresses in private networks.
        at_once: Maximum number of concurrent connections.
        network: The proxy and the certificates; by default those of the system, and no proxy.
    """

    def __init__(
        self,
        url: str,
        keys: Sequence[bytes | Secret],
        *,
        timeout_s: float,
        allow_private: bool = False,
        at_once: int = 8,
        network: Network | None = None,
    ) -> None:
        self._url = URL(url)
        self._keys = tuple(keys)
        self._host = urlsplit(url).hostname or ""
        self._network = network or Network("sinks", NetworkSettings(), self._url, Redactor())
        # The configured host may resolve to a private address only if the setting allows it.
        policy = AddressPolicy(hosts=(self._host,) if allow_private else ())
        self._session = aiohttp.ClientSession(
            connector=self._network.connector(policy, limit=at_once),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def deliver(self, event_id: str, event: str) -> None:
        """Posts one event. Any 2xx status means that the receiver took it."""
        body, timestamp = event.encode(), int(datetime.now(UTC).timestamp())
        headers = {
            "content-type": "application/cloudevents+json; charset=utf-8",
            "user-agent": "export-worker",
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(await self._current_keys(), event_id, timestamp, body),
        }
        response = await self._request("POST", body, headers)
        self._check_status(response.status, response.headers.get("Retry-After"))

    async def _current_keys(self) -> list[bytes]:
        return [signing_key(await key.value()) if isinstance(key, Secret) else key for key in self._keys]

    async def check(self) -> str:
        """Sends a HEAD request. A receiver that takes only events refuses it with 4xx or 501, so it does answer."""
        status = (await self._request("HEAD", None, {"user-agent": "export-worker"})).status
        if 300 <= status < 400 or status == 410 or (status >= 500 and status != 501):
            self._check_status(status, None)
        return f"{self._host} answers"

    async def _request(self, method: str, body: bytes | None, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Sends one request and returns the answer, read and closed.

        Raises:
            SinkError: There was no answer.
        """
        try:
            async with await self._network.request(
                self._session, method, self._url, data=body, headers=headers
            ) as response:
                await _drain(response)
                return response
        except AddressRefusedError:
            message = f"{self._host} leads to an address that is not public; set allow_private = true to allow it"
            raise SinkError(message) from None
        except TimeoutError:
            raise SinkError(f"{self._host} did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            if trouble := self._network.trouble(error):
                raise SinkUnconnectedError(f"{self._host}: {trouble}") from None
            # The error's text may contain the address, and the address a secret.
            raise SinkError(f"{self._host} cannot be reached ({type(error).__name__})") from None

    def _check_status(self, status: int, retry_after: str | None) -> None:
        if 200 <= status < 300:
            return
        if status == 413:
            raise EventTooLargeError(f"{self._host} answered 413: it takes only smaller events")
        if status == 410:
            raise SinkDisabledError(f"{self._host} answered 410, so no more events are sent to it")
        if 300 <= status < 400:
            raise SinkError(f"{self._host} answered {status}: redirects are not followed; set url to the final address")
        raise SinkError(f"{self._host} answered {status}", retry_after_s=retry_after_s(retry_after, datetime.now(UTC)))

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Reads a small answer to its end. Closes the connection of a larger one."""
    left = ANSWER_MAX_BYTES
    while left > 0 and (chunk := await response.content.read(left)):
        left -= len(chunk)
    if left <= 0:
        response.close()
