"""Says why a connection failed where a person can remove the cause: a certificate, TLS or a proxy."""

import re
import ssl
from dataclasses import dataclass

import aiohttp

from export_worker.egress.hosts import canonical_host
from export_worker.egress.proxies import Proxy
from export_worker.errors import PlatformUnavailableError
from export_worker.texts.reasons import system_reason


class PlatformUnconnectedError(PlatformUnavailableError):
    """No connection to the platform, for a cause that only a person can remove: a certificate, TLS or a proxy.

    The advice follows the first semicolon of the message. The platform has certainly not received the request.
    """


class ProxyLoginError(aiohttp.ClientError):
    """A proxy has answered a request to an http:// address with status 407. The server has not received it."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a connection failed.

    Args:
        says: What is wrong.
        advice: What to do.
    """

    says: str
    advice: str

    def __str__(self) -> str:
        return f"{self.says}; {self.advice}"


_EXPIRED, _NOT_YET_VALID, _REVOKED = 10, 9, 23
_UNKNOWN_AUTHORITY = frozenset((18, 19, 20, 21))
"""A self-signed certificate, alone or in a chain; no issuer is known; the first signature cannot be verified."""
_OTHER_NAME = frozenset((62, 64))
"""Numbers of OpenSSL for results of a verification (x509_vfy.h): no host name fits, no IP address fits."""
_REASON = re.compile(r"\[SSL: (\w+)\]")
_NO_TLS = frozenset(("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"))
_ALERT = re.compile(r"\w*ALERT_(\w+)")
_CERTIFICATE_ALERTS = {
    "UNKNOWN_CA": "it does not know the authority",
    "CERTIFICATE_EXPIRED": "it has expired",
    "CERTIFICATE_REVOKED": "it has been revoked",
    "CERTIFICATE_UNKNOWN": "it is not acceptable",
    "BAD_CERTIFICATE": "it is not acceptable",
    "UNSUPPORTED_CERTIFICATE": "its type is not supported",
    "ACCESS_DENIED": "its owner has no access",
}
"""What a server states about a client certificate (RFC 8446, 6.2)."""


def tls_trouble(error: BaseException, section: str) -> Trouble | None:
    """Returns what failed in TLS; None if it was something else.

    Args:
        section: Section of the configuration, for the advice, e.g. `connections.gio`.
    """
    server = f"{error.host}:{error.port}" if isinstance(error, aiohttp.ClientSSLError) else "the server"
    cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _certificate_trouble(cause, server, section)
    found = _REASON.search(str(error))
    return _handshake_trouble(found[1], server, section) if found else None


def _certificate_trouble(error: ssl.SSLCertVerificationError, server: str, section: str) -> Trouble:
    whose = f"the certificate of {server}"
    match error.verify_code:
        case code if code in _UNKNOWN_AUTHORITY:
            says = f"{whose} comes from an authority that is not trusted here"
            return Trouble(says, f"add its certificate to {section}.ca_file")
        case code if code in _OTHER_NAME:
            says = f"{whose} is for another host"
            return Trouble(says, "use a name that the certificate contains, or renew it with this name")
        case code if code == _EXPIRED:
            return Trouble(f"{whose} has expired", "renew it on that server, or correct the clock of this machine")
        case code if code == _NOT_YET_VALID:
            return Trouble(f"{whose} is not valid yet", "correct the clock of this machine, or of that server")
        case code if code == _REVOKED:
            return Trouble(f"{whose} has been revoked", "renew it on that server")
        case _:
            return Trouble(f"{whose} is refused ({error.verify_message})", "renew it on that server")


def _handshake_trouble(reason: str, server: str, section: str) -> Trouble | None:
    setting = f"{section}.client_cert"
    if reason in _NO_TLS:
        return Trouble(f"{server} does not use TLS", "use its port for TLS, or an address with http://")
    alert = _ALERT.fullmatch(reason)
    match alert and alert[1]:
        case "CERTIFICATE_REQUIRED":
            return Trouble(f"{server} requires a client certificate", f"set {setting}")
        case "HANDSHAKE_FAILURE":
            says = f"{server} refused the TLS handshake"
            return Trouble(says, f"set {setting} if it requires a client certificate, or update its version of TLS")
        case "PROTOCOL_VERSION":
            return Trouble(f"{server} does not support TLS 1.2 or later", "update that server")
        case str(name) if name in _CERTIFICATE_ALERTS:
            says = f"{server} refused the client certificate: {_CERTIFICATE_ALERTS[name]}"
            return Trouble(says, f"correct {setting}")
        case _:
            return None


def proxy_trouble(error: BaseException, proxy: Proxy, setting: str) -> Trouble | None:
    """Returns what a proxy refused, or why it cannot be reached; None if it was something else.

    Args:
        proxy: The proxy.
        setting: The setting or variable that names it, for the advice.
    """
    match error:
        case aiohttp.ClientConnectorError() if (canonical_host(error.host), error.port) == (proxy.host, proxy.port):
            says = f"cannot connect to the proxy {proxy} ({system_reason(str(error.os_error))})"
            return Trouble(says, f"correct {setting}, or check the proxy")
        case aiohttp.ClientHttpProxyError() if error.status != 407:
            target = error.request_info.url
            says = f"the proxy {proxy} refused to connect to {target.host}:{target.port} (HTTP {error.status})"
            return Trouble(says, "check the rules and the DNS of the proxy")
        case aiohttp.ClientHttpProxyError() | ProxyLoginError():
            what = "refused the user or the password" if proxy.login else "requires a user and a password"
            return Trouble(f"the proxy {proxy} {what} (HTTP 407)", f"correct them in {setting}")
        case _:
            return None
