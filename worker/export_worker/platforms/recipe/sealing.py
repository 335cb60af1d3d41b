"""Hides a link in a text that is stored and shown, so that only workers with the connection's credential can read it.

Some APIs return the link of a file once, when the job is submitted. Everyone who has the link can read the file, so the
operation id must not show it. Pure apart from randomness.
"""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Callable, Sequence

_NONCE_BYTES = 16
_TAG_BYTES = 16


class Seal:
    """Closes and opens texts with a key that is derived from the secrets of a connection.

    The text is combined with the output of SHAKE-256 over the key and a nonce, and authenticated with HMAC-SHA-256.

    Args:
        secrets: The secrets of the connection.
        random_bytes: Source of randomness.
    """

    def __init__(self, secrets: Sequence[str], random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        material = b"\0".join(secret.encode() for secret in secrets)
        self._key = hashlib.sha256(b"export-worker link\0" + material).digest()
        self._random_bytes = random_bytes

    def close(self, text: str) -> str:
        """Returns the sealed text: letters, digits, `-` and `_`."""
        nonce = self._random_bytes(_NONCE_BYTES)
        body = self._combined(nonce, text.encode())
        return base64.urlsafe_b64encode(nonce + self._tag(nonce + body) + body).decode().rstrip("=")

    def open(self, sealed: str) -> str | None:
        """Returns the text; None if it was not sealed with this key, or was changed."""
        try:
            data = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
        except (binascii.Error, ValueError):
            return None
        nonce, tag, body = data[:_NONCE_BYTES], data[_NONCE_BYTES:][:_TAG_BYTES], data[_NONCE_BYTES + _TAG_BYTES :]
        if not hmac.compare_digest(tag, self._tag(nonce + body)):
            return None
        return self._combined(nonce, body).decode(errors="replace")

    def _tag(self, data: bytes) -> bytes:
        return hmac.digest(self._key, b"tag" + data, "sha256")[:_TAG_BYTES]

    def _combined(self, nonce: bytes, body: bytes) -> bytes:
        stream = hashlib.shake_256(self._key + nonce).digest(len(body))
        return bytes(a ^ b for a, b in zip(body, stream, strict=True))
