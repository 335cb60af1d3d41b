"""Content-MD5 is sent only where it protects a body: not over TLS, unless the settings require it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from export_worker.s3.checksum_modes import CHECKSUM_MODES, modes_over_tls
from export_worker.s3.checksums import ALGORITHMS, CRC64NVME, Checksum
from export_worker.s3.objects import Target
from export_worker.s3.settings import Integrity
from export_worker.s3.store import S3Store
from support.certificates import certificate
from support.noise import noise
from support.s3_server import Call, Refusal, S3Proxy, new_bucket, s3_client, s3_credentials, s3_proxy

PARTS = [bytearray(noise(1)), bytearray(b"end")]
UNCONFIRMED = frozenset({f"x-amz-checksum-{algorithm.name.lower()}" for algorithm in ALGORITHMS})
"""A store to which these headers are hidden confirms no checksum."""


@pytest.fixture(scope="module")
def proxy(s3_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Proxy]:
    """A store over TLS."""
    with pytest.MonkeyPatch.context() as patch, s3_credentials():
        made = certificate(tmp_path_factory.mktemp("tls"))
        patch.setenv("AWS_CA_BUNDLE", str(made.path))
        with s3_proxy(s3_url, made) as proxy:
            yield proxy


@dataclass
class Site:
    proxy: S3Proxy
    client: Any
    bucket: str

    async def write(self, integrity: Integrity) -> list[Call]:
        """Writes an object with one call, and another one in parts. Returns the calls that have sent bytes."""
        self.proxy.calls.clear()
        with ThreadPoolExecutor(2) as executor:
            store = S3Store(self.client, executor, integrity=integrity)
            await store.put(Target(self.bucket, "e/one.csv", "e", "text/csv"), bytes(PARTS[1]))
            upload = await store.begin(Target(self.bucket, "e/parts.csv", "e", "text/csv"))
            written = await upload.complete([await upload.send(number, part) for number, part in enumerate(PARTS, 1)])
        whole = b"".join(PARTS)
        assert written.checksum == Checksum.of(whole, written.checksum.algorithm)
        assert self.client.get_object(Bucket=self.bucket, Key="e/parts.csv")["Body"].read() == whole
        return [call for call in self.proxy.calls if call.name in {"put_object", "upload_part"}]


@pytest.fixture
def site(proxy: S3Proxy) -> Iterator[Site]:
    proxy.reset()
    proxy.dropped = frozenset()
    with s3_client(proxy.endpoint_url, attempts=1) as client:
        yield Site(proxy, client, new_bucket(client))


async def test_no_md5_is_sent_over_tls_to_a_store_that_confirms_no_checksum(site: Site) -> None:
    site.proxy.dropped = UNCONFIRMED
    assert [call.checksums for call in await site.write("auto")] == [{"CRC64NVME"}] * 3


async def test_md5_is_sent_over_tls_if_the_setting_requires_it(site: Site) -> None:
    site.proxy.dropped = UNCONFIRMED
    assert [call.checksums for call in await site.write("always")] == [{"CRC64NVME", "MD5"}] * 3


async def test_store_without_crcs_gets_no_checksum_over_tls(site: Site) -> None:
    site.proxy.rule = lambda call: Refusal(501, "NotImplemented") if call.has_checksum else None
    sent = [call.checksums for call in await site.write("auto") if not call.has_checksum]
    assert sent == [set()] * 3


async def test_bucket_that_requires_a_digest_gets_md5_over_tls(site: Site) -> None:
    """A bucket with Object Lock does so, also on a store without CRCs."""

    def rule(call: Call) -> Refusal | None:
        if call.has_checksum:
            return Refusal(501, "NotImplemented")
        has_body = call.name in {"put_object", "upload_part"}
        return Refusal(400, "InvalidRequest") if has_body and "MD5" not in call.checksums else None

    site.proxy.rule = rule
    sent = [call.checksums for call in await site.write("auto") if rule(call) is None]
    assert sent == [{"MD5"}] * 3


def test_mode_without_a_checksum_precedes_md5_once() -> None:
    modes = modes_over_tls(CHECKSUM_MODES)
    assert [mode.algorithm for mode in modes if mode.has_crc] == list(ALGORITHMS)
    assert [(mode.algorithm, mode.is_plain, mode.by_md5) for mode in modes if not mode.has_crc] == [
        (CRC64NVME, True, False),
        (CRC64NVME, False, True),
    ]
    assert modes_over_tls(modes[-2].modes_of_upload) == modes[-2:]
