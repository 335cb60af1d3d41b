"""TLS certificates for tests: of a private authority, or self-signed; created for one test run."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key.

    Args:
        path: PEM file of the certificate.
        path_with_key: PEM file of the key and the certificate.
        authority: PEM file of the authority that has signed it. If it is self-signed, this is the certificate itself.
    """

    path: Path
    path_with_key: Path
    authority: Path

    def server(self, *, clients_of: Path | None = None) -> ssl.SSLContext:
        """Returns the context of a server that presents the certificate.

        Args:
            clients_of: The server requires a client certificate that this authority has signed.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.path_with_key)
        if clients_of is not None:
            context.load_verify_locations(clients_of)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client(self) -> ssl.SSLContext:
        """Returns the context of a client that trusts only the certificate's authority."""
        return ssl.create_default_context(cafile=str(self.authority))


class Authority:
    """A private authority.

    Args:
        folder: Where its certificates are written.
        name: Its name, which is also the name of its file.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        own = _builder(self._name, self._name, self._key, (-1, 1))
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        own = own.add_extension(_SIGNS_CERTIFICATES, critical=True)
        own = own.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(self, *hosts: str, days: tuple[float, float] = (-1, 1), password: str | None = None) -> Certificate:
        """Returns a certificate of the authority.

        Args:
            hosts: Names and IP addresses of the server, or the name of a client.
            days: From when and until when it is valid, in days from now.
            password: Encrypts the key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        built = (
            _builder(_name(hosts[0]), self._name, key, days)
            .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
            .add_extension(identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        file = f"{hosts[0]}-{built.serial_number}"
        return _written(self._folder, file, built, key, authority=self.path, password=password)


def certificate(folder: Path) -> Certificate:
    """Creates a self-signed certificate of `localhost` and 127.0.0.1 that is valid for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("localhost")
    names = x509.SubjectAlternativeName([_general_name(host) for host in ("localhost", "127.0.0.1")])
    built = _builder(name, name, key, (-1, 1)).add_extension(names, critical=False).sign(key, hashes.SHA256())
    return _written(folder, "certificate", built, key)


_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: tuple[float, float]
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
    )


def _written(
    folder: Path,
    name: str,
    built: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    *,
    authority: Path | None = None,
    password: str | None = None,
) -> Certificate:
    pem = built.public_bytes(Encoding.PEM)
    locked = NoEncryption() if password is None else BestAvailableEncryption(password.encode())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
    path = folder / f"{name}.pem"
    made = Certificate(path, folder / f"{name}-and-key.pem", authority or path)
    made.path.write_bytes(pem)
    made.path_with_key.write_bytes(secret + pem)
    return made
