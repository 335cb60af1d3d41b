"""`doctor` with good and broken services: its findings, its advice, and its exit status."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from export_worker.contract.redis_keys import Keys
from export_worker.demo.processes import child, free_port, redis_binary
from export_worker.doctor.finding import FIX_FIELD
from export_worker.doctor.redis import check_redis
from export_worker.platforms.settings import ConnectionSettings
from export_worker.redis.client import close_redis, open_redis
from support import command_forks, s3_server, secret_canaries, worker_site
from support.deployment import blocks
from support.misbehaving_server import answering, http
from support.redis_process import wait_until_ready
from support.worker_site import CommandResult, Site

WAIT_TIMEOUT_S = 30.0


async def doctor(site: Site, **environment: str) -> tuple[CommandResult, dict[str, list[dict[str, Any]]]]:
    """Runs `doctor --json`. Returns the findings by what they are about."""
    ran = await doctor_run(site, **environment)
    assert "Traceback" not in ran.stderr
    secret_canaries.check("the report", (ran.stdout + ran.stderr).encode())
    report = json.loads(ran.stdout)
    assert report["ok"] == (ran.status == 0)
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in report["findings"]:
        assert set(finding) == {"about", "level", "says", "mend"}
        assert finding["level"] == "ok" or finding[FIX_FIELD], finding
        found.setdefault(finding["about"], []).append(finding)
    return ran, found


async def doctor_run(site: Site, *arguments: str, **environment: str) -> CommandResult:
    return await asyncio.to_thread(site.command, "doctor", *(arguments or ("--json",)), **environment)


def errors(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [finding for findings in found.values() for finding in findings if finding["level"] == "error"]


def test_output_that_is_closed_early_causes_no_error(site: Site) -> None:
    """`doctor | head -2` closes its output early."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*command_forks.COMMAND, "doctor"], stdout=pipe, stderr=pipe, env=site.environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert [process.stdout.readline()[:2] for _ in range(2)] == [b"ok", b"ok"]
        process.stdout.close()
        assert process.stderr.read() == b""


async def until_a_worker_is_recorded(site: Site) -> None:
    client = open_redis(site.redis_url)
    async with asyncio.timeout(WAIT_TIMEOUT_S):
        while not await client.zcard(Keys(site.namespace).workers):
            await asyncio.sleep(0.02)
    await close_redis(client)


async def test_working_services_have_no_error_and_nothing_remains(site: Site) -> None:
    async with worker_site.worker(site):
        await until_a_worker_is_recorded(site)
        ran, found = await doctor(site)
    assert (ran.status, errors(found)) == (0, [])
    report = " ".join(finding["says"] for findings in found.values() for finding in findings)
    for expected in (" answers", "noeviction", "append-only", "machine agree", "may run all ", "runs "):
        assert expected in report
    assert "existing objects are not overwritten" in report
    assert "multipart uploads can be created" in report
    assert "growingio accepts the credential" in report
    assert site.objects() == {}
    assert site.open_uploads() == []


def connection(site: Site, platform: str, **more: Any) -> dict[str, Any]:
    return {"platform": platform, "base_url": site.platform_url, "token": secret_canaries.TOKEN} | more


async def test_every_platform_is_called_and_a_wrong_token_is_an_error(site: Site) -> None:
    platforms = {"growingio": {}, "growingio-rest": {}, "thinkingdata": {}, "sensorsdata": {"project": "default"}}
    site.settings = {
        "connections": {
            f"{name}-{platform}": connection(site, platform, token=token, **more)
            for platform, more in platforms.items()
            for name, token in {"good": secret_canaries.TOKEN, "bad": "canary-wrong-token"}.items()
        }
    }
    ran, found = await doctor(site)
    assert ran.status == 2
    for platform in platforms:
        (fine,), (bad,) = found[f"connection good-{platform}"], found[f"connection bad-{platform}"]
        assert fine["level"] == "ok", fine
        assert bad["level"] == "error"
        assert f"connections.bad-{platform}" in bad[FIX_FIELD]
    assert "canary-wrong" not in ran.stdout + ran.stderr


async def test_platform_that_cannot_be_reached_ends_with_status_4(site: Site) -> None:
    unreachable = connection(site, "growingio", base_url=f"http://127.0.0.1:{free_port()}")
    site.settings = {"connections": {"gio": unreachable}}
    ran, found = await doctor(site)
    assert ran.status == 4
    assert "base_url" in found["connection gio"][0][FIX_FIELD]


async def test_missing_settings_file_is_one_finding_with_advice(site: Site) -> None:
    ran, found = await doctor(site, EXPORT_CONFIG="/no/such/file.toml")
    assert ran.status == 2
    (finding,) = found["configuration"]
    assert (finding["says"].partition("(")[0], finding[FIX_FIELD]) == (
        "cannot read the configuration /no/such/file.toml ",
        "check EXPORT_CONFIG",
    )


async def test_empty_name_of_the_settings_file_means_no_file(site: Site) -> None:
    _, found = await doctor(site, EXPORT_CONFIG="")
    says = "every setting is known (export-worker.toml does not exist; only EXPORT_ variables are used)"
    assert found["configuration"][0]["says"] == says


async def test_ignored_variable_is_a_warning_except_those_of_kubernetes(site: Site) -> None:
    links = {"EXPORT_GATEWAY_SERVICE_HOST": "10.0.0.1", "EXPORT_GATEWAY_PORT_8080_TCP_ADDR": "10.0.0.1"}
    ran, found = await doctor(site, EXPORT_REDISURL="x", EXPORT_WORKR__TRANSFERS="3", **links)
    assert ran.status == 0
    warnings = [finding for finding in found["configuration"] if finding["level"] == "warning"]
    warned = {finding["says"].partition(" ")[0]: finding[FIX_FIELD] for finding in warnings}
    assert warned == {
        "EXPORT_REDISURL": "did you mean EXPORT_REDIS_URL?",
        "EXPORT_WORKR__TRANSFERS": "did you mean EXPORT_WORKER__TRANSFERS?",
    }


async def test_failure_in_one_part_keeps_the_findings_of_the_others(site: Site, tmp_path: Path) -> None:
    """Settings that are refused only when they are used: an option of Redis, and a missing identity file of AWS."""
    site.redis_url += "?no_such_option=1"
    token = {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/x", "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "none")}
    ran, found = await doctor(site, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", **token)
    assert ran.status == 2
    assert "unknown option" in found["redis"][0]["says"]
    assert "No such file" in found["s3"][0]["says"]
    assert "AWS_ variables" in found["s3"][0][FIX_FIELD]
    assert found["connection gio"][0]["level"] == "ok"


async def test_web_identity_that_sts_refuses_is_reported(site: Site, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-web-identity")
    token = {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/x", "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token")}
    refused = b"<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>"
    async with answering(http("400 Bad Request", refused)) as url:
        sts = {"AWS_ENDPOINT_URL_STS": url, "AWS_REGION": "us-east-1"}
        ran, found = await doctor(site, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", **token, **sts)
    assert ran.status == 2
    assert "InvalidIdentityToken" in found["s3"][0]["says"]


async def test_unknown_and_wrong_settings_are_named_in_findings(site: Site) -> None:
    ran, found = await doctor(site, EXPORT_S3__BUKET="x", EXPORT_WORKER__TRANSFERS="0")
    assert ran.status == 2
    report = " ".join(finding["says"] for finding in found["configuration"])
    assert "s3.buket: unknown setting (in EXPORT_S3__BUKET)" in report
    assert "did you mean bucket?" in [finding[FIX_FIELD] for finding in found["configuration"]]
    assert "worker.transfers" in report


async def test_unknown_option_of_a_driver_and_missing_secret_are_named_in_findings(site: Site) -> None:
    odd = connection(site, "growingio", token="env:NOT_SET_ANYWHERE", pol=1)
    site.settings = {"connections": {"gio": odd}}
    ran, found = await doctor(site)
    assert ran.status == 2
    assert "NOT_SET_ANYWHERE is not set" in " ".join(finding["says"] for finding in found["configuration"])
    assert "connections.gio" in found["connection gio"][0]["says"]


async def test_missing_key_of_the_gateway_is_only_a_warning(site: Site) -> None:
    site.settings = {"gateway": {"api_keys": '["env:NOT_SET_ANYWHERE"]'}}
    ran, found = await doctor(site)
    assert ran.status == 0
    (finding,) = [finding for finding in found["configuration"] if "NOT_SET_ANYWHERE" in finding["says"]]
    assert finding["level"] == "warning"


@asynccontextmanager
async def own_redis(site: Site, directory: Path, *options: str) -> AsyncIterator[redis.asyncio.Redis]:
    port = free_port()
    command = [redis_binary(), "--port", str(port), "--dir", str(directory), "--bind", "127.0.0.1", *options]
    async with child(command, name="redis", directory=directory) as process:
        await wait_until_ready(process, port, name="redis", directory=directory)
        site.redis_url = f"redis://127.0.0.1:{port}/0"
        client = redis.asyncio.Redis(port=port)
        yield client
        await client.aclose()


async def test_redis_that_deletes_keys_and_writes_no_file_is_reported(site: Site, tmp_path: Path) -> None:
    async with own_redis(site, tmp_path, "--maxmemory-policy", "allkeys-lru", "--appendonly", "no"):
        ran, found = await doctor(site)
    assert ran.status == 2
    by_advice = {finding[FIX_FIELD]: finding for finding in found["redis"]}
    assert by_advice["CONFIG SET maxmemory-policy noeviction"]["level"] == "error"
    assert by_advice["set appendonly yes"]["level"] == "warning"
    assert "loses all changes since its last snapshot (save " in by_advice["set appendonly yes"]["says"]


ALMOST_FULL = "almost full"
"""In place of options: a `maxmemory` slightly above what the server uses, which differs between servers."""


@pytest.mark.parametrize(
    ("options", "level", "says"),
    [
        (["--appendonly", "no", "--save", ""], "warning", "when Redis ends, it loses everything"),
        (["--appendonly", "no", "--rename-command", "CONFIG", ""], "warning", "CONFIG GET is refused"),
        (["--appendonly", "yes", "--rename-command", "CONFIG", ""], "ok", "but how often cannot be read"),
        (["--appendonly", "yes", "--appendfsync", "always"], "ok", "no accepted export is lost"),
        (["--appendonly", "yes", "--appendfsync", "no"], "warning", "synced when the kernel decides"),
        (["--maxmemory", "64mb"], "ok", "% of maxmemory"),
        ([ALMOST_FULL], "warning", "at 100% Redis accepts no exports"),
        (["--maxmemory", "0"], "ok", "are used without a maxmemory"),
    ],
)
async def test_durability_and_memory_of_redis_are_reported(
    redis_url: str, namespace: str, tmp_path: Path, options: list[str], level: str, says: str
) -> None:
    site = Site(redis_url, "", "", namespace, "bucket", tmp_path)
    almost_full = options == [ALMOST_FULL]
    async with own_redis(site, tmp_path, *([] if almost_full else options)) as administrator:
        if almost_full:
            memory = await administrator.info("memory")
            await administrator.config_set("maxmemory", int(1.08 * memory["used_memory"]))
        client = open_redis(site.redis_url)
        findings = [finding async for finding in check_redis(client, Keys(namespace), site.redis_url)]
        await close_redis(client)
    (found,) = [finding for finding in findings if says in finding.says]
    assert found.level == level
    assert (found.level == "ok") == (not found.fix)


async def test_wrong_password_of_redis_is_reported_without_the_password(site: Site, tmp_path: Path) -> None:
    async with own_redis(site, tmp_path, "--requirepass", "canary-redis-word-44d1"):
        site.redis_url = site.redis_url.replace("redis://", "redis://:canary-redis-wrong-9f2a@")
        ran, found = await doctor(site)
    assert ran.status == 2
    assert found["redis"][0]["says"] == "Redis refuses the user or the password"
    assert "canary-redis" not in ran.stdout + ran.stderr


async def test_replica_of_redis_is_reported_as_read_only(site: Site, tmp_path: Path) -> None:
    async with own_redis(site, tmp_path, "--replicaof", "127.0.0.1", "1"):
        ran, found = await doctor(site)
    assert ran.status == 2
    assert any("read-only" in finding["says"] for finding in found["redis"])


async def test_missing_permissions_in_redis_are_named(site: Site, tmp_path: Path) -> None:
    async with own_redis(site, tmp_path) as administrator:
        rule = ["+@all", "-zadd", "-publish", "-info", "-time"]
        set_user: Any = administrator.execute_command  # redis-py leaves it untyped
        await set_user("ACL", "SETUSER", "few", "on", "nopass", "~*", "&*", *rule)
        site.redis_url = site.redis_url.replace("redis://", "redis://few:any@")
        ran, found = await doctor(site)
        assert await administrator.keys(f"*{site.namespace}:doctor*") == []
    assert ran.status == 2
    report = " ".join(finding["says"] for finding in found["redis"])
    assert "the user may not run ZADD, PUBLISH on" in report
    assert "settings cannot be read" in report
    assert "clock cannot be read" in report


async def test_redis_that_cannot_be_reached_ends_with_status_4(site: Site) -> None:
    site.redis_url = f"redis://127.0.0.1:{free_port()}/0"
    ran, found = await doctor(site)
    assert ran.status == 4
    assert "EXPORT_REDIS_URL" in found["redis"][0][FIX_FIELD]
    assert "workers" not in found


async def test_missing_bucket_is_one_finding_with_advice(site: Site) -> None:
    site.bucket = "no-such-bucket-here"
    ran, found = await doctor(site)
    assert ran.status == 2
    (finding,) = found["s3"]
    assert "NoSuchBucket" in finding["says"]
    assert "s3.bucket" in finding[FIX_FIELD]


async def test_store_that_cannot_be_reached_ends_with_status_4(site: Site) -> None:
    site.s3_url = f"http://127.0.0.1:{free_port()}"
    ran, found = await doctor(site)
    assert ran.status == 4
    assert "endpoint_url" in found["s3"][0][FIX_FIELD]


async def test_store_without_conditions_and_checksums_gets_warnings(site: Site) -> None:
    """The store ignores If-None-Match and refuses newer checksums."""
    with s3_server.s3_proxy(site.s3_url) as proxy:
        proxy.rule = lambda call: s3_server.Refusal(400, "InvalidArgument") if call.has_checksum else None
        proxy.dropped = frozenset({"if-none-match"})
        direct, site.s3_url = site.s3_url, proxy.endpoint_url
        ran, found = await doctor(site)
        site.s3_url = direct
    levels = {finding["says"].partition(",")[0]: finding["level"] for finding in found["s3"]}
    assert ran.status == 0
    assert levels["no CRC of single objects is supported"] == "warning"
    assert levels["no CRC of multipart uploads is supported"] == "warning"
    assert levels["If-None-Match is ignored for single objects"] == "warning"
    assert site.objects() == {}


async def test_failing_call_leaves_nothing_in_the_bucket(site: Site) -> None:
    with s3_server.s3_proxy(site.s3_url) as proxy:
        proxy.rule = lambda call: s3_server.Refusal(403, "AccessDenied") if call.name == "upload_part" else None
        direct, site.s3_url = site.s3_url, proxy.endpoint_url
        ran, found = await doctor(site)
        site.s3_url = direct
    assert ran.status == 2
    assert any("upload_part" in finding["says"] and "AccessDenied" in finding["says"] for finding in found["s3"])
    assert site.objects() == {}
    assert site.open_uploads() == []


async def test_bucket_policy_and_lifecycle_of_the_operations_guide_are_valid(site: Site) -> None:
    lifecycle, policy = blocks("k8s/README.md", "json")
    client = site.s3()
    client.put_bucket_lifecycle_configuration(Bucket=site.bucket, LifecycleConfiguration=json.loads(lifecycle))
    _, found = await doctor(site)
    # The policy is set after the check: with it, the server refuses calls without TLS.
    client.put_bucket_policy(Bucket=site.bucket, Policy=policy.replace("my-exports", site.bucket))
    client.delete_bucket_policy(Bucket=site.bucket)
    client.close()
    assert any("rule aborts incomplete uploads" in finding["says"] for finding in found["s3"])
    assert not errors(found)


async def test_text_report_has_one_line_for_each_finding(site: Site) -> None:
    ran = await doctor_run(site, "--")
    lines = ran.stdout.splitlines()
    assert ran.status == 0, ran
    assert len(lines) > 8
    assert all(line.startswith(("ok ", "warning ", "ERROR ")) for line in lines)
    assert any(" -> start one: export-worker run" in line for line in lines)


def test_settings_of_a_connection_define_the_hosts_that_it_may_reach() -> None:
    settings = ConnectionSettings.model_validate(
        {
            "platform": "growingio",
            "base_url": "https://op.example.cn",
            "allow_hosts": ["127.0.0.1:9000", "cdn.example.cn"],
        }
    )
    reach = settings.address_policy()
    assert [reach.allows_host(host) for host in ("op.example.cn", "127.0.0.1", "cdn.cn")] == [True, True, False]


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
async def test_line_end_in_an_aws_key_is_named_and_masked(site: Site, name: str) -> None:
    ran, found = await doctor(site, **{name: f"{secret_canaries.AWS_ENVIRONMENT[name]}\n"})
    assert ran.status == 2
    (finding,) = found["s3"]
    assert "begins or ends with a blank or a line end" in finding["says"]


async def test_what_libraries_log_is_masked(site: Site) -> None:
    """aiokafka logs the address of a broker that it cannot reach. The setting of the address is a secret."""
    broker = f"127.0.0.1:{free_port()}"
    site.settings = {"sinks": {"k": {"type": "broker", "broker": "kafka", "url": broker, "destination": "events"}}}
    ran, _ = await doctor(site)
    assert "aiokafka" in ran.stderr
    assert broker not in ran.stdout + ran.stderr


async def test_output_of_a_credential_process_is_not_printed(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "aws-config"
    file.write_text('[default]\ncredential_process = sh -c "echo canary-of-the-process >&2; exit 1"\n')
    keys = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    ran, found = await doctor(site, AWS_CONFIG_FILE=str(file), **keys)
    assert "Error when retrieving credentials from custom-process" in found["s3"][0]["says"]
    assert "canary-of-the-process" not in ran.stdout + ran.stderr
