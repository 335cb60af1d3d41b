"""Signs JSON Web Tokens with the private key of a client (RFC 7519, RFC 7523)."""

import base64
import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress

from export_worker.errors import AuthFailedError

VALID_S = 300
"""Seconds for which a signed token is valid. Servers allow five to sixty minutes."""
ES256_BYTES = 32
"""Length of each half of an ES256 signature (RFC 7518, 3.4)."""


def signed_jwt(claims: Mapping[str, object], private_key: str, key_id: str, now_s: float) -> str:
    r"""Returns a signed token: RS256 for a key of RSA, and ES256 for one of the curve P-256.

    Args:
        claims: What the token states. `iat`, `exp` and `jti` are added.
        private_key: PEM. The line ends may be written as `\n`, as in environment variables.
        key_id: Put into the head of the token, unless it is empty.
        now_s: Seconds since 1970.

    Raises:
        AuthFailedError: The key cannot be used.
    """
    algorithm, sign = _signer(private_key.replace("\\n", "\n"))
    head = {"alg": algorithm, "typ": "JWT"} | ({"kid": key_id} if key_id else {})
    body = {**claims, "iat": int(now_s), "exp": int(now_s) + VALID_S, "jti": uuid.uuid4().hex}
    text = f"{_encoded(json.dumps(head).encode())}.{_encoded(json.dumps(body).encode())}"
    return f"{text}.{_encoded(sign(hashlib.sha256(text.encode()).digest()))}"


def _signer(pem: str) -> tuple[str, Callable[[bytes], bytes]]:
    # Most workers sign no tokens, and need not load the library for it.
    from awscrt.crypto import EC, RSA, RSASignatureAlgorithm  # noqa: PLC0415

    with suppress(Exception):  # awscrt raises RuntimeError and ValueError for a key of another kind
        rsa = RSA.new_private_key_from_pem_data(pem)
        return "RS256", lambda digest: rsa.sign(RSASignatureAlgorithm.PKCS1_5_SHA256, digest)
    try:
        body = "".join(line for line in pem.splitlines() if not line.startswith("-----"))
        key = EC.new_key_from_der_data(base64.b64decode(body, validate=True))
        EC.decode_der_signature_to_padded_pair(key.sign(bytes(ES256_BYTES)), ES256_BYTES)
    except Exception:  # noqa: BLE001 - see above; its message may quote the key
        raise AuthFailedError("the private key must be PEM, of RSA or of the curve P-256, without a password") from None
    return "ES256", lambda digest: EC.decode_der_signature_to_padded_pair(key.sign(digest), ES256_BYTES)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
