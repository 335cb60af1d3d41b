"""Hides a link in a text that is stored and shown, so that only workers with the connection's credential can read it.

Some APIs return the link of a file once, when the job is submitted. Everyone who has the link can read the file, so the
operation id must not show it. Pure apart from randomness.
"""

import base64
import binascii
import hashlib
import hmac
import os
from collections import deque
from collections.abc import Callable, Sequence

from export_worker.secrets.secret import KNOWN_VALUES

_NONCE_BYTES = 16
_TAG_BYTES = 16


class Seal:
    """Closes and opens texts with a key that is derived from the secrets of a connection.

    When a secret is exchanged, `use` adds its key. Texts that were closed with an earlier one can still be opened.

    The text is combined with the output of SHAKE-256 over the key and a nonce, and authenticated with HMAC-SHA-256.

    Args:
        secrets: The secrets of the connection.
        random_bytes: Source of randomness.
    """

    def __init__(self, secrets: Sequence[str], random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._keys = deque[bytes](maxlen=KNOWN_VALUES)
        self._random_bytes = random_bytes
        self.use(secrets)

    def use(self, secrets: Sequence[str]) -> None:
        """Closes texts with the key of these secrets from now on."""
        material = b"\0".join(secret.encode() for secret in secrets)
        key = hashlib.sha256(b"export-worker link\0" + material).digest()
        if key in self._keys:
            self._keys.remove(key)
        self._keys.append(key)

    def close(self, text: str) -> str:
        """Returns the sealed text: letters, digits, `-` and `_`."""
        key, nonce = self._keys[-1], self._random_bytes(_NONCE_BYTES)
        body = _combined(key, nonce, text.encode())
        return base64.urlsafe_b64encode(nonce + _tag(key, nonce + body) + body).decode().rstrip("=")

    def open(self, sealed: str) -> str | None:
        """Returns the text; None if it was not sealed with a known key, or was changed."""
        try:
            data = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
        except (binascii.Error, ValueError):
            return None
        nonce, tag, body = data[:_NONCE_BYTES], data[_NONCE_BYTES:][:_TAG_BYTES], data[_NONCE_BYTES + _TAG_BYTES :]
        key = next((key for key in self._keys if hmac.compare_digest(tag, _tag(key, nonce + body))), None)
        return None if key is None else _combined(key, nonce, body).decode(errors="replace")


def _tag(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, b"tag" + data, "sha256")[:_TAG_BYTES]


def _combined(key: bytes, nonce: bytes, body: bytes) -> bytes:
    stream = hashlib.shake_256(key + nonce).digest(len(body))
    return bytes(a ^ b for a, b in zip(body, stream, strict=True))
