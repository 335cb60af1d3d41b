"""`doctor` with stores and Redis servers that fail in unusual ways.

It reports each failure soon, keeps its earlier findings, and removes its bucket objects.
"""

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from export_worker.commands.declarations import doctor
from export_worker.config import Config
from export_worker.config.gateway import GatewaySettings
from export_worker.config.queues import GatewayQueue
from export_worker.contract.redis_keys import Keys
from export_worker.demo.processes import child, free_port, redis_binary
from export_worker.doctor.finding import Finding
from export_worker.doctor.redis import check_redis
from export_worker.doctor.report import queue_findings
from export_worker.doctor.s3 import TransferTraits, check_s3
from export_worker.redis.client import close_redis, open_redis
from export_worker.s3.client import CallLimits, build_client
from export_worker.s3.endpoints import Endpoint
from support import certificates, s3_server, secret_canaries
from support.misbehaving_server import HTML, answering, http
from support.redis_process import wait_until_ready
from support.s3_server import Altered, Call, Refusal, Rewritten, S3Proxy


@pytest.fixture
def bucket(endpoint: str) -> Iterator[str]:
    """A bucket in which nothing may remain."""
    with s3_server.s3_client(endpoint) as client:
        plain: Any = client
        name = s3_server.new_bucket(plain)
        yield name
        assert "Contents" not in plain.list_objects_v2(Bucket=name)
        assert "Uploads" not in plain.list_multipart_uploads(Bucket=name)


READ_TIMEOUT_S = 2.0
"""Enough for parts of some MiB on a busy machine."""


@contextmanager
def client_with_short_timeout(url: str) -> Iterator[Any]:
    client = build_client(
        Endpoint(s3_server.REGION, url), 1, limits=CallLimits(attempts=1, read_timeout_s=READ_TIMEOUT_S)
    )
    yield client
    client.close()


async def s3_findings(url: str, bucket: str) -> list[Finding]:
    with client_with_short_timeout(url) as client:
        return await check_s3(client, bucket, "p/")


def errors(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.level == "error"]


@pytest.mark.parametrize(
    ("answer", "status", "says", "fix"),
    [
        (None, 4, "ReadTimeoutError", "s3.endpoint_url"),
        (b"", 4, "ConnectionClosedError", "s3.endpoint_url"),
        (http("200 OK", HTML), 4, "the response does not come from S3", "s3.endpoint_url"),
        (http("200 OK", b"<p>not even <b>XML"), 4, "500", "s3.endpoint_url"),
        (http("404 Not Found", HTML), 2, "404", "s3.endpoint_url"),
        (http("405 Method Not Allowed", HTML), 2, "405", "s3.endpoint_url"),
        (http("403 Forbidden", b""), 2, "403", "allow this call"),
        (http("301 Moved", b"", b"Location: https://example.com/\r\n"), 2, "301", "https://"),
        (http("302 Found", b"", b"Location: https://example.com/\r\n"), 2, "302", "https://"),
        (http("307 Elsewhere", b"", b"Location: https://example.com/\r\n"), 2, "307", "https://"),
        (http("308 Moved", b"", b"Location: https://example.com/\r\n"), 2, "308", "https://"),
    ],
)
async def test_server_that_is_not_s3_is_reported(
    endpoint: str, answer: bytes | None, status: int, says: str, fix: str
) -> None:
    async with answering(answer) as url:
        (found,) = await s3_findings(url, "bucket")
    assert (found.level, found.status) == ("error", status), found
    assert says in found.says
    assert fix in found.fix


async def test_certificate_of_an_unknown_authority_is_reported(endpoint: str, tmp_path: Path) -> None:
    async with answering(http("200 OK", HTML), certificates.certificate(tmp_path).server()) as url:
        (found,) = await s3_findings(url, "bucket")
    assert found.status == 4
    assert "TLS connection failed" in found.says
    assert "AWS_CA_BUNDLE" in found.fix


@pytest.mark.parametrize(("ahead_s", "named"), [(3600.0, "behind"), (-1200.0, "ahead of")])
@pytest.mark.parametrize("refusal", [Refusal(403, "RequestTimeTooSkewed"), Refusal(400, "AccessDenied")], ids=str)
async def test_skewed_clock_is_reported_with_its_seconds(
    proxy: S3Proxy, bucket: str, ahead_s: float, named: str, refusal: Refusal
) -> None:
    """The second refusal is the one of rclone for a clock that is behind."""
    proxy.clock_ahead_s, proxy.skew_refusal = ahead_s, refusal
    (found,) = await s3_findings(proxy.endpoint_url, bucket)
    assert f" s {named} the clock of S3" in found.says
    assert (found.fix, found.status) == ("synchronize the clock of this machine", 4)


@pytest.mark.parametrize(("ahead_s", "named"), [(300.0, "behind"), (-200.0, "ahead of"), (0.0, None)])
async def test_clock_that_is_wrong_but_accepted_gets_a_warning(
    proxy: S3Proxy, bucket: str, ahead_s: float, named: str | None
) -> None:
    proxy.clock_ahead_s = ahead_s
    found = await s3_findings(proxy.endpoint_url, bucket)
    about = [finding for finding in found if "the clock of S3" in finding.says]
    assert [finding.level for finding in about] == ([] if named is None else ["warning"])
    assert all(f" s {named} the clock of S3" in finding.says for finding in about)
    assert errors(found) == []


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
async def test_failing_call_is_named_and_earlier_findings_are_kept(
    proxy: S3Proxy, bucket: str, call: str, status: int, code: str
) -> None:
    proxy.rule = lambda made: Refusal(status, code) if made.name == call and "lifecycle" not in made.query else None
    found = await s3_findings(proxy.endpoint_url, bucket)
    with_code = [finding for finding in found if finding.level != "ok" and code in finding.says]
    if call != "head_object":  # a response to HEAD has no body, so it has no code
        (finding,) = with_code
        resumable = call == "list_parts" and status == 403
        assert (call in finding.says) != resumable
        assert finding.status == (0 if resumable else 4 if status == 503 else 2)
    assert errors(found) or call == "list_parts"
    assert len([finding for finding in found if finding.level == "ok"]) >= CALLS[call]


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (403, "AccessDenied")])
async def test_failing_conditional_write_is_not_reported_as_unsupported(
    proxy: S3Proxy, bucket: str, status: int, code: str
) -> None:
    proxy.rule = lambda call: (
        Refusal(status, code) if call.name == "put_object" and "if-none-match" in call.headers else None
    )
    found = await s3_findings(proxy.endpoint_url, bucket)
    assert not any("If-None-Match" in finding.says for finding in found)
    assert [code in finding.says for finding in errors(found)] == [True]


async def test_store_without_conditional_writes_is_an_error_if_keys_are_not_unique(proxy: S3Proxy, bucket: str) -> None:
    proxy.rule = lambda came: Refusal(501, "NotImplemented") if "if-none-match" in came.headers else None
    with client_with_short_timeout(proxy.endpoint_url) as client:
        first, second = errors(await check_s3(client, bucket, "p/", TransferTraits(has_unique_keys=False)))
    assert first.says == "If-None-Match is not supported for single objects (NotImplemented), so transfers fail"
    assert second.says == "If-None-Match is not supported for multipart uploads (NotImplemented), so transfers fail"


async def test_store_that_ignores_conditions_of_uploads_gets_a_warning(proxy: S3Proxy, bucket: str) -> None:
    def rule(call: Call) -> Altered | None:
        if call.name == "complete_multipart_upload":
            proxy.dropped = frozenset({"if-none-match"})
        return None

    proxy.rule = rule
    says = {finding.says.partition(",")[0] for finding in await s3_findings(proxy.endpoint_url, bucket)}
    assert {
        "existing objects are not overwritten by single objects (If-None-Match)",
        "If-None-Match is ignored for multipart uploads",
    } <= says


async def test_bucket_that_requires_checksums_has_no_error(proxy: S3Proxy, bucket: str) -> None:
    """A bucket with Object Lock behaves like this (S3 user guide, "Object Lock considerations")."""
    proxy.rule = lambda call: (
        Refusal(400, "InvalidRequest") if call.name == "put_object" and not call.checksums else None
    )
    assert errors(await s3_findings(proxy.endpoint_url, bucket)) == []


async def test_free_key_that_is_answered_with_403_is_an_error(proxy: S3Proxy, bucket: str) -> None:
    """S3 answers like this if s3:ListBucket is not allowed."""
    proxy.rule = lambda call: (
        Refusal(403, "AccessDenied") if call.name == "head_object" and call.path.endswith("/absent") else None
    )
    (found,) = errors(await s3_findings(proxy.endpoint_url, bucket))
    assert "s3:ListBucket" in found.fix


async def test_store_that_does_not_answer_the_last_call_keeps_all_earlier_findings(proxy: S3Proxy, bucket: str) -> None:
    def rule(call: Call) -> None:
        if "lifecycle" in call.query:
            time.sleep(READ_TIMEOUT_S + 1)

    proxy.rule = rule
    *others, last = await s3_findings(proxy.endpoint_url, bucket)
    assert errors(others) == []
    assert "get_bucket_lifecycle_configuration" in last.says


async def test_scratch_objects_that_cannot_be_removed_are_reported(proxy: S3Proxy, endpoint: str) -> None:
    with s3_server.s3_client(endpoint) as client:
        bucket = s3_server.new_bucket(client)
    proxy.rule = lambda call: Refusal(403, "AccessDenied") if call.method == "DELETE" else None
    *_, refused, left = await s3_findings(proxy.endpoint_url, bucket)
    assert "abort_multipart_upload" in refused.says
    assert "4 scratch object(s) or upload(s) could not be removed from p/export-worker-doctor/" in left.says


@pytest.mark.parametrize("status", [405, 501])
async def test_store_that_cannot_abort_uploads_gets_a_warning_and_keeps_none(
    proxy: S3Proxy, bucket: str, status: int
) -> None:
    proxy.rule = lambda call: Refusal(status, "MethodNotAllowed") if call.name == "abort_multipart_upload" else None
    found = await s3_findings(proxy.endpoint_url, bucket)
    assert errors(found) == []
    (about,) = [finding for finding in found if "cannot be aborted" in finding.says]
    assert (about.level, "AbortIncompleteMultipartUpload" in about.fix) == ("warning", True)


async def test_upload_is_completed_with_every_part_that_was_sent(proxy: S3Proxy, bucket: str) -> None:
    """Ceph and rclone refuse an upload that leaves a part out."""
    sent: dict[str, set[str]] = {}

    def rule(call: Call) -> None:
        if call.name == "upload_part":
            sent.setdefault(call.query["uploadId"][0], set()).update(call.query["partNumber"])

    proxy.rule = rule
    assert errors(await s3_findings(proxy.endpoint_url, bucket)) == []
    assert sorted(map(sorted, sent.values())) == [["1"], ["1"], ["1", "2", "3"]]


@pytest.mark.parametrize(
    ("pattern", "by"),
    [(rb"<Size>\d+</Size>", b"<Size>1</Size>"), (rb"<ETag>.*?</ETag>", b"<ETag>x</ETag>"), (rb"<Part>.*</Part>", b"")],
    ids=["size", "ETag", "no part"],
)
async def test_store_that_lists_parts_otherwise_than_sent_is_reported(
    proxy: S3Proxy, bucket: str, pattern: bytes, by: bytes
) -> None:
    proxy.rule = lambda call: Rewritten(b"(?s)" + pattern, by) if call.name == "list_parts" else None
    found = await s3_findings(proxy.endpoint_url, bucket)
    assert errors(found) == []
    (about,) = [finding for finding in found if "interrupted transfers" in finding.says]
    assert (about.level, "restart" in about.says) == ("warning", True)


def test_services_that_do_not_answer_are_checked_at_the_same_time(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, outputs: Path
) -> None:
    """Connections, and S3 with as many storage settings, are checked at the same time. Each has a finding."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # doctor replaces them
    monkeypatch.setattr("export_worker.wiring.storage.CHECK_READ_TIMEOUT_S", 1.0)
    monkeypatch.setattr("export_worker.doctor.connections.CHECK_TIMEOUT_S", 2.0)
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:  # it accepts connections, and reads nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        one = {"platform": "growingio", "base_url": url, "token": secret_canaries.TOKEN}
        connections = {f"c{number}": one | {"s3": {"tags": {"pair": str(number // 2)}}} for number in range(20)}
        for name, value in {"CONNECTIONS": connections, "S3": {"endpoint_url": url}}.items():
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
    assert sum(found["about"].startswith("connections.") for found in silent_ones) == 10, (
        "equal storage settings are checked once"
    )
    # One after the other, the checks would take 20 times two seconds and 10 times four. At the same time they take
    # four seconds, and the time to build the clients.
    assert took_s < 60


# Redis


@asynccontextmanager
async def own_redis(directory: Path, *options: str) -> AsyncIterator[str]:
    port = free_port()
    command = [redis_binary(), "--port", str(port), "--dir", str(directory), "--bind", "127.0.0.1", "--save", ""]
    async with child([*command, *options], name="redis", directory=directory) as process:
        await wait_until_ready(process, port, name="redis", directory=directory)
        yield f"127.0.0.1:{port}/0"


async def redis_findings(url: str) -> list[Finding]:
    redis = open_redis(url, retries=0)
    try:
        async with asyncio.timeout(20):
            return [finding async for finding in check_redis(redis, Keys("exports"), url)]
    finally:
        await close_redis(redis)


DENIED = {
    "-evalsha": "EVALSHA",
    "-multi": "MULTI",
    "-exec": "MULTI",
    "-subscribe": "SUBSCRIBE",
    "-info": "INFO",
    "-time": "TIME",
    "-ping": "ping",
}


async def test_each_permission_that_a_worker_needs_is_reported_if_denied(tmp_path: Path) -> None:
    async with own_redis(tmp_path) as address:
        administrator = open_redis(f"redis://{address}")
        for rule, named in DENIED.items():
            set_user: Any = administrator.execute_command
            await set_user("ACL", "SETUSER", "few", "on", "nopass", "resetkeys", "~*", "&*", "+@all", rule)
            found = errors(await redis_findings(f"redis://few:any@{address}"))
            assert [named in finding.says for finding in found] == [True], (rule, found)
            assert {finding.status for finding in found} == {2}
            assert "k8s/README.md" in found[0].fix
        await close_redis(administrator)


async def test_redis_in_cluster_mode_is_an_error_if_the_namespace_has_no_hash_tag(tmp_path: Path) -> None:
    async with own_redis(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as address:
        first = errors(await redis_findings(f"redis://{address}"))[0]
    assert first.says.startswith("cluster mode is enabled, and the namespace has no hash tag")
    assert 'namespace = "{exports}"' in first.fix


async def test_redis_that_stops_answering_during_the_check_is_reported(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis answers PING and INFO, and nothing after them."""
    monkeypatch.setattr("export_worker.redis.client.SOCKET_TIMEOUT_S", 0.2)
    async with falling_silent(redis_url, after=b"$4\r\nINFO\r\n") as url:
        *before, last = await redis_findings(url)
    assert before
    assert last.status == 4
    assert "EXPORT_REDIS_URL" in last.fix


@asynccontextmanager
async def falling_silent(redis_url: str, after: bytes) -> AsyncIterator[str]:
    """A proxy of Redis that forwards nothing after a certain command."""
    port = int(redis_url.rpartition(":")[2].partition("/")[0])
    writers: list[asyncio.StreamWriter] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_redis = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, to_redis[1]))
        passed = False
        while data := await reader.read(65536):
            if not passed:
                to_redis[1].write(data)
                writer.write(await to_redis[0].read(65536))
            passed = passed or after in data.upper()

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    server.close()
    for writer in writers:
        writer.close()


async def test_each_queue_of_a_gateway_is_checked_under_its_name(redis_url: str, namespace: str) -> None:
    away = f"redis://127.0.0.1:{free_port()}/0"
    queues = {"north": GatewayQueue(redis_url=redis_url, namespace=namespace), "south": GatewayQueue(redis_url=away)}
    found = await queue_findings(Config(gateway=GatewaySettings(queues=queues)))
    assert {finding.about for finding in found if finding.about.startswith("queue north: ")} >= {"queue north: redis"}
    assert [finding.about for finding in errors(found)] == ["queue south: redis"]
