"""TLS to Redis verifies certificates: their authority and their names."""

import asyncio

import pytest

from export_producers.client import ExportQueue
from export_worker.errors import ServiceUnreachableError
from support.certificates import Certificate, certificate
from support.proxy_server import tls_front


@pytest.fixture(scope="module")
def localhost_certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for `localhost` and 127.0.0.1."""
    return certificate(tmp_path_factory.mktemp("tls"))


async def test_valid_certificate_is_accepted(
    redis_url: str, namespace: str, localhost_certificate: Certificate
) -> None:
    async with tls_front(redis_url, localhost_certificate.server()) as port:
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={localhost_certificate.path}"
        # With a hash tag, the client also looks for a cluster, which is not there.
        for name in (namespace, f"{{{namespace}}}"):
            async with ExportQueue(url, namespace=name) as queue:
                assert await queue.list_exports() == []


async def test_certificate_of_an_unknown_authority_is_refused(
    redis_url: str, namespace: str, localhost_certificate: Certificate
) -> None:
    async with tls_front(redis_url, localhost_certificate.server()) as port:
        queue = ExportQueue(f"rediss://:hidden-word@localhost:{port}/0", namespace=namespace)
        with pytest.raises(ServiceUnreachableError, match="certificate") as refused:
            await queue.list_exports()
        await queue.close()
    assert "hidden-word" not in str(refused.value)


async def test_certificate_for_another_name_is_refused(
    redis_url: str, namespace: str, localhost_certificate: Certificate
) -> None:
    async with tls_front(redis_url, localhost_certificate.server()) as port:
        # The same machine, by an address that is not in the certificate.
        url = f"rediss://127.0.0.2:{port}/0?ssl_ca_certs={localhost_certificate.path}"
        server = await asyncio.start_server(lambda *_: None, "127.0.0.2", port, ssl=localhost_certificate.server())
        async with server, ExportQueue(url, namespace=namespace) as queue:
            with pytest.raises(ServiceUnreachableError, match="IP address mismatch"):
                await queue.list_exports()
