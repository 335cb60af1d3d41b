"""Signatures of requests: pure functions of a request, a key, the time and a nonce."""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from yarl import URL

from export_worker.contract.auth import AliyunSigner, DatafinderSigner, HmacSigner, SignerAuth, VolcengineSigner
from export_worker.errors import PlatformRefusedError
from export_worker.platforms.http.outgoing import Credential, Outgoing

_PLACEHOLDER = re.compile(r"\{([a-z_0-9]+)\}")


@dataclass(frozen=True, slots=True)
class Key:
    """A key for signatures. The repr shows none of it.

    Args:
        id: Sent with each request.
        secret: Never sent.
    """

    id: str
    secret: str

    def __repr__(self) -> str:
        return "Key(***)"


@dataclass(frozen=True, slots=True)
class Moment:
    """What makes a signature unique.

    Args:
        now_s: Seconds since 1970.
        nonce: A text that no other request has.
    """

    now_s: float
    nonce: str

    def text(self, form: str) -> str:
        """Returns the time in UTC in a form of `strftime`."""
        return datetime.fromtimestamp(self.now_s, UTC).strftime(form)


def sign(spec: SignerAuth, request: Outgoing, key: Key, moment: Moment) -> Credential:
    """Returns the headers that sign a request. The headers of the request include `Host`.

    Raises:
        PlatformRefusedError: The body is streamed.
    """
    if request.is_streamed:
        raise PlatformRefusedError(f"{request.method} {request.url.raw_path}: a streamed body cannot be signed")
    match spec:
        case VolcengineSigner():
            return _volcengine(spec, request, key, moment)
        case DatafinderSigner():
            return _datafinder(spec, request, key, moment)
        case AliyunSigner():
            return _aliyun(request, key, moment)
        case HmacSigner():
            return _configured(spec, request, key, moment)


def _volcengine(spec: VolcengineSigner, request: Outgoing, key: Key, moment: Moment) -> Credential:
    body_hash = hashlib.sha256(request.body).hexdigest()
    date, day = moment.text("%Y%m%dT%H%M%SZ"), moment.text("%Y%m%d")
    added = {"X-Date": date, "X-Content-Sha256": body_hash}
    signed = _signed_headers({**request.headers, **added}, lambda name: name in _VOLCENGINE_SIGNS)
    canonical = _canonical_request(request, signed, body_hash)
    scope = f"{day}/{spec.region}/{spec.service}/request"
    signing_key = key.secret.encode()
    for part in (day, spec.region, spec.service, "request"):
        signing_key = _hmac(signing_key, part)
    text = "\n".join(("HMAC-SHA256", date, scope, _sha256(canonical)))
    signature = _hmac(signing_key, text).hex()
    names = ";".join(signed)
    authorization = f"HMAC-SHA256 Credential={key.id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return Credential(headers={**added, "Authorization": authorization})


_VOLCENGINE_SIGNS = frozenset({"content-type", "host", "x-content-sha256", "x-date"})
"""The headers that the documentation signs. Proxies may change others."""


def _aliyun(request: Outgoing, key: Key, moment: Moment) -> Credential:
    body_hash = hashlib.sha256(request.body).hexdigest()
    added = {
        "x-acs-content-sha256": body_hash,
        "x-acs-date": moment.text("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": moment.nonce,
    }
    signed = _signed_headers(
        {**request.headers, **added}, lambda name: name in {"host", "content-type"} or name.startswith("x-acs-")
    )
    text = f"ACS3-HMAC-SHA256\n{_sha256(_canonical_request(request, signed, body_hash))}"
    signature = _hmac(key.secret.encode(), text).hex()
    names = ";".join(signed)
    authorization = f"ACS3-HMAC-SHA256 Credential={key.id},SignedHeaders={names},Signature={signature}"
    return Credential(headers={**added, "Authorization": authorization})


def _datafinder(spec: DatafinderSigner, request: Outgoing, key: Key, moment: Moment) -> Credential:
    # The public Java client uses the first digest as a key in hexadecimal digits, not as bytes.
    prefix = f"ak-v1/{key.id}/{int(moment.now_s)}/{spec.valid_s}"
    signing_key = _hmac(key.secret.encode(), prefix).hex().encode()
    head = (
        f"HTTPMethod:{request.method}\nCanonicalURI:{request.url.raw_path}\n"
        f"CanonicalQueryString:{request.url.raw_query_string}\nCanonicalBody:"
    )
    signature = hmac.new(signing_key, head.encode() + request.body, hashlib.sha256).hexdigest()
    return Credential(headers={"Authorization": f"{prefix}/{signature}"})


def _configured(spec: HmacSigner, request: Outgoing, key: Key, moment: Moment) -> Credential:
    values = {"key": key.id.encode(), "nonce": moment.nonce.encode(), "timestamp": _timestamp(spec, moment).encode()}
    parts = {
        **values,
        "method": request.method.encode(),
        "path": request.url.raw_path.encode(),
        "query": request.url.raw_query_string.encode(),
        "host": request.headers.get("Host", "").encode(),
        "body": request.body,
        "body_sha256": hashlib.sha256(request.body).hexdigest().encode(),
        "body_md5": hashlib.md5(request.body, usedforsecurity=False).hexdigest().encode(),
    }
    digest = hmac.new(key.secret.encode(), _filled(spec.message, parts), spec.algorithm).digest()
    signature = digest.hex() if spec.encoding == "hex" else base64.b64encode(digest).decode()
    values["signature"] = signature.encode()
    headers = {spec.header: spec.value, **spec.headers}
    return Credential(headers={name: _filled(text, values).decode() for name, text in headers.items()})


def _timestamp(spec: HmacSigner, moment: Moment) -> str:
    match spec.timestamp:
        case "s":
            return str(int(moment.now_s))
        case "ms":
            return str(int(moment.now_s * 1000))
        case "iso":
            return moment.text("%Y-%m-%dT%H:%M:%SZ")


def _filled(template: str, values: Mapping[str, bytes]) -> bytes:
    """Replaces the placeholders of a template. What a value contains is not replaced again."""
    pieces = _PLACEHOLDER.split(template)
    texts = (values.get(piece, b"") if index % 2 else piece.encode() for index, piece in enumerate(pieces))
    return b"".join(texts)


def _canonical_request(request: Outgoing, signed: Mapping[str, str], body_hash: str) -> str:
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    return "\n".join(
        (
            request.method,
            _canonical_path(request.url),
            _canonical_query(request.url),
            lines,
            ";".join(signed),
            body_hash,
        )
    )


def _canonical_path(url: URL) -> str:
    """Returns the path with each segment encoded in one way. A driver may have written `:` or `%e4`."""
    return "/".join(quote(unquote_to_bytes(part), safe="-_.~") for part in (url.raw_path or "/").split("/"))


def _canonical_query(url: URL) -> str:
    """Returns the query string in the order of its names. The values of a repeated name keep their order."""
    # In Latin-1, each byte is one character, so bytes that are no UTF-8 stay unchanged.
    pairs = parse_qsl(url.raw_query_string, keep_blank_values=True, encoding="latin-1")
    encode = partial(quote, safe="-_.~", encoding="latin-1")
    return "&".join(f"{encode(name)}={encode(value)}" for name, value in sorted(pairs, key=itemgetter(0)))


def _signed_headers(headers: Mapping[str, str], is_signed: Callable[[str], bool]) -> dict[str, str]:
    """Returns the headers to sign: names in lower case and in order, values without surrounding spaces."""
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    return {name: lower[name] for name in sorted(lower) if is_signed(name)}


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
