"""`doctor` before stores and Redis that fail in odd ways: it tells each, soon, keeps what it found, and tidies up."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from export_worker.commands.doctor import doctor
from export_worker.contract.redis_keys import Keys
from export_worker.demo.processes import child, free_port, redis_binary, wait_until_listening
from export_worker.doctor.finding import Finding
from export_worker.doctor.redis import check_redis
from export_worker.doctor.s3 import check_s3
from export_worker.redis.client import close_redis, open_redis
from export_worker.s3.client import build_client
from support import certificates, s3_server, secret_canaries
from support.misbehaving_server import HTML, answering, http
from support.s3_server import Altered, Call, Refusal, S3Proxy


@pytest.fixture
def scratch(endpoint: str) -> Iterator[str]:
    """A bucket in which nothing is left."""
    with s3_server.s3_client(endpoint) as client:
        plain: Any = client
        bucket = s3_server.new_bucket(plain)
        yield bucket
        assert "Contents" not in plain.list_objects_v2(Bucket=bucket)
        assert "Uploads" not in plain.list_multipart_uploads(Bucket=bucket)


@contextmanager
def asking(url: str) -> Iterator[Any]:
    """A client that does not wait for long."""
    client = build_client(s3_server.REGION, url, 1, attempts=1, read_timeout_s=0.2)
    yield client
    client.close()


async def told(url: str, bucket: str) -> list[Finding]:
    with asking(url) as client:
        return await check_s3(client, bucket, "p/")


def errors(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.level == "error"]


@pytest.mark.parametrize(
    ("answer", "status", "says", "mend"),
    [
        (None, 4, "ReadTimeoutError", "s3.endpoint_url"),
        (b"", 4, "ConnectionClosedError", "s3.endpoint_url"),
        (http("200 OK", HTML), 4, "what answered is no S3", "s3.endpoint_url"),
        (http("200 OK", b"<p>not even <b>XML"), 4, "500", "s3.endpoint_url"),
        (http("404 Not Found", HTML), 2, "404", "s3.endpoint_url"),
        (http("405 Method Not Allowed", HTML), 2, "405", "s3.endpoint_url"),
        (http("403 Forbidden", b""), 2, "403", "right to this call"),
        (http("301 Moved", b"", b"Location: https://example.com/\r\n"), 2, "301", "https://"),
        (http("302 Found", b"", b"Location: https://example.com/\r\n"), 2, "302", "https://"),
        (http("307 Elsewhere", b"", b"Location: https://example.com/\r\n"), 2, "307", "https://"),
        (http("308 Moved", b"", b"Location: https://example.com/\r\n"), 2, "308", "https://"),
    ],
)
async def test_what_is_no_store_is_told(endpoint: str, answer: bytes | None, status: int, says: str, mend: str) -> None:
    async with answering(answer) as url:
        (found,) = await told(url, "bucket")
    assert (found.level, found.status) == ("error", status), found
    assert says in found.says
    assert mend in found.mend


async def test_a_certificate_of_an_unknown_authority_is_told(endpoint: str, tmp_path: Path) -> None:
    async with answering(http("200 OK", HTML), certificates.certificate(tmp_path).server()) as url:
        (found,) = await told(url, "bucket")
    assert found.status == 4
    assert "no TLS" in found.says
    assert "AWS_CA_BUNDLE" in found.mend


CALLS = {
    "put_object": 0,
    "head_object": 0,
    "create_multipart_upload": 3,
    "upload_part": 3,
    "list_parts": 3,
    "complete_multipart_upload": 3,
    "list_multipart_uploads": 4,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (503, "SlowDown")])
async def test_each_call_that_fails_is_named_beside_what_was_found_before(
    proxy: S3Proxy, scratch: str, call: str, status: int, code: str
) -> None:
    proxy.rule = lambda came: Refusal(status, code) if came.name == call and "lifecycle" not in came.query else None
    found = await told(proxy.endpoint_url, scratch)
    named = [finding for finding in found if finding.level != "ok" and code in finding.says]
    if call != "head_object":  # an answer to HEAD has no body
        (finding,) = named
        resumable = call == "list_parts" and status == 403
        assert (call in finding.says) != resumable
        assert finding.status == (0 if resumable else 4 if status == 503 else 2)
    assert errors(found) or call == "list_parts"
    assert len([finding for finding in found if finding.level == "ok"]) >= CALLS[call]


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (403, "AccessDenied")])
async def test_a_refused_conditional_write_is_no_store_that_does_not_know_it(
    proxy: S3Proxy, scratch: str, status: int, code: str
) -> None:
    proxy.rule = lambda came: (
        Refusal(status, code) if came.name == "put_object" and "if-none-match" in came.headers else None
    )
    found = await told(proxy.endpoint_url, scratch)
    assert not any("If-None-Match" in finding.says for finding in found)
    assert [code in finding.says for finding in errors(found)] == [True]


async def test_a_store_without_conditional_writes_is_told_so(proxy: S3Proxy, scratch: str) -> None:
    proxy.rule = lambda came: Refusal(501, "NotImplemented") if "if-none-match" in came.headers else None
    first, second = errors(await told(proxy.endpoint_url, scratch))
    assert first.says == "does not know If-None-Match with single objects (NotImplemented): transfers fail"
    assert "complete_multipart_upload" in second.says


async def test_a_store_that_only_passes_over_it_in_uploads_is_told_so(proxy: S3Proxy, scratch: str) -> None:
    def rule(call: Call) -> Altered | None:
        if call.name == "complete_multipart_upload":
            proxy.dropped = frozenset({"if-none-match"})
        return None

    proxy.rule = rule
    says = {finding.says.partition(":")[0] for finding in await told(proxy.endpoint_url, scratch)}
    assert {
        "refuses to overwrite with single objects (If-None-Match)",
        "ignores If-None-Match with multipart uploads",
    } <= says


async def test_a_bucket_that_takes_nothing_without_a_checksum_is_fine(proxy: S3Proxy, scratch: str) -> None:
    """As one with Object Lock (S3 user guide, "Object Lock considerations")."""
    proxy.rule = lambda call: (
        Refusal(400, "InvalidRequest") if call.name == "put_object" and not call.checksums else None
    )
    assert errors(await told(proxy.endpoint_url, scratch)) == []


async def test_a_free_key_that_looks_like_a_refusal_is_told(proxy: S3Proxy, scratch: str) -> None:
    """As S3 answers without s3:ListBucket."""
    proxy.rule = lambda call: (
        Refusal(403, "AccessDenied") if call.name == "head_object" and call.path.endswith("/absent") else None
    )
    (found,) = errors(await told(proxy.endpoint_url, scratch))
    assert "s3:ListBucket" in found.mend


async def test_a_store_that_falls_silent_at_the_lifecycle_loses_nothing_of_the_report(
    proxy: S3Proxy, scratch: str
) -> None:
    def rule(call: Call) -> None:
        if "lifecycle" in call.query:
            time.sleep(0.4)

    proxy.rule = rule
    *others, last = await told(proxy.endpoint_url, scratch)
    assert errors(others) == []
    assert "get_bucket_lifecycle_configuration" in last.says


async def test_what_cannot_be_removed_is_told(proxy: S3Proxy, endpoint: str) -> None:
    with s3_server.s3_client(endpoint) as client:
        bucket = s3_server.new_bucket(client)
    proxy.rule = lambda call: Refusal(403, "AccessDenied") if call.method == "DELETE" else None
    *_, refused, left = await told(proxy.endpoint_url, bucket)
    assert "abort_multipart_upload" in refused.says
    assert "3 scratch object(s) or upload(s) could not be removed and stay under p/export-worker-doctor/" in left.says


def test_it_takes_no_longer_for_many_that_are_silent(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, outputs: Path
) -> None:
    """Connections, and S3 in as many ways: they are asked at once, and each is told of."""
    monkeypatch.setattr("export_worker.wiring.storage.CHECK_READ_TIMEOUT_S", 1.0)
    monkeypatch.setattr("export_worker.doctor.connections.PATIENCE_S", 2.0)
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:  # it takes connections, and reads nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        one = {"platform": "growingio", "base_url": url, "token": secret_canaries.TOKEN}
        ways = {f"c{number}": one | {"s3": {"tags": {"way": str(number // 2)}}} for number in range(20)}
        for name, value in {"CONNECTIONS": ways, "S3": {"endpoint_url": url}}.items():
            monkeypatch.setenv(f"EXPORT_{name}", json.dumps(value))
        monkeypatch.setenv("EXPORT_REDIS_URL", redis_url)
        with s3_server.s3_credentials():
            begun_s = time.monotonic()
            ran = CliRunner().invoke(doctor, ["--json"])
            took_s = time.monotonic() - begun_s
    (outputs / "doctor-silent.txt").write_text(ran.output)
    silent_ones = [found for found in json.loads(ran.output)["findings"] if found["level"] == "error"]
    assert ran.exit_code == 4
    assert sum(found["about"].startswith("connection ") for found in silent_ones) == 20
    assert sum(found["about"].startswith("connections.") for found in silent_ones) == 10, "equal ways are tried once"
    # One after the other it would be 20 times two seconds and 10 times four; at once it is four and the building.
    assert took_s < 60


# Redis


@asynccontextmanager
async def a_redis(directory: Path, *options: str) -> AsyncIterator[str]:
    port = free_port()
    command = [redis_binary(), "--port", str(port), "--dir", str(directory), "--bind", "127.0.0.1", "--save", ""]
    async with child([*command, *options], name="redis", directory=directory) as process:
        await wait_until_listening(process, port, name="redis", directory=directory)
        yield f"127.0.0.1:{port}/0"


async def of_redis(url: str) -> list[Finding]:
    redis = open_redis(url, retries=0)
    try:
        async with asyncio.timeout(20):
            return [finding async for finding in check_redis(redis, Keys("exports"), url)]
    finally:
        await close_redis(redis)


LACKING = {
    "-evalsha": "EVALSHA",
    "-multi": "MULTI",
    "-exec": "MULTI",
    "-subscribe": "SUBSCRIBE",
    "-info": "INFO",
    "-time": "TIME",
    "-ping": "ping",
}


async def test_each_right_without_which_no_worker_runs_is_missed(tmp_path: Path) -> None:
    async with a_redis(tmp_path) as address:
        administrator = open_redis(f"redis://{address}")
        for rule, named in LACKING.items():
            set_user: Any = administrator.execute_command
            await set_user("ACL", "SETUSER", "few", "on", "nopass", "resetkeys", "~*", "&*", "+@all", rule)
            found = errors(await of_redis(f"redis://few:any@{address}"))
            assert [named in finding.says for finding in found] == [True], (rule, found)
            assert {finding.status for finding in found} == {2}
            assert "k8s/README.md" in found[0].mend
        await close_redis(administrator)


async def test_a_cluster_is_told_as_such(tmp_path: Path) -> None:
    async with a_redis(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as address:
        first = errors(await of_redis(f"redis://{address}"))[0]
    assert first.says.startswith("is a cluster")


async def test_a_redis_that_falls_silent_in_the_middle_is_told(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers PING and INFO, and nothing more."""
    monkeypatch.setattr("export_worker.redis.client.SOCKET_TIMEOUT_S", 0.2)
    async with falling_silent(redis_url, after=b"$4\r\nINFO\r\n") as url:
        *before, last = await of_redis(url)
    assert before
    assert last.status == 4
    assert "EXPORT_REDIS_URL" in last.mend


@asynccontextmanager
async def falling_silent(redis_url: str, after: bytes) -> AsyncIterator[str]:
    """A way to Redis on which nothing goes any more once a command has passed."""
    port = int(redis_url.rpartition(":")[2].partition("/")[0])
    open_ends: list[asyncio.StreamWriter] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_redis = await asyncio.open_connection("127.0.0.1", port)
        open_ends.extend((writer, to_redis[1]))
        passed = False
        while data := await reader.read(65536):
            if not passed:
                to_redis[1].write(data)
                writer.write(await to_redis[0].read(65536))
            passed = passed or after in data.upper()

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    server.close()
    for writer in open_ends:
        writer.close()
