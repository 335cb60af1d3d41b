"""The command line as a process: exit statuses, stdout with only JSON, and no traceback."""

import json
import os
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from export_worker.demo.processes import free_port
from support import worker_site
from support.command_forks import COMMAND
from support.worker_site import CommandResult, Site

EXPORT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
REQUEST: dict[str, Any] = {"connection": "gio", "export": EXPORT}


def keys(site: Site) -> list[bytes]:
    """Returns all Redis keys of this test, including arq's."""
    with closing(redis.Redis.from_url(site.redis_url)) as client:
        return [key for key in client.scan_iter(count=1000) if site.namespace.encode() in key]


def enqueue(site: Site, request: Any, *options: str) -> CommandResult:
    body = request if isinstance(request, str) else json.dumps(request)
    return site.command("enqueue", "-", *options, stdin=body)


def changed(**fields: Any) -> dict[str, Any]:
    """Returns the request with changed fields of its export; None removes a field."""
    export = {name: value for name, value in (EXPORT | fields).items() if value is not None}
    return {"connection": "gio", "export": export}


def rest(**fields: Any) -> dict[str, Any]:
    export = {"kind": "growingio.segment_profile_users", "project_id": "p", "segment_key": "s"}
    return {"connection": "rest", "export": export | fields}


ANALYSIS = {"kind": "growingio.analysis", "project_id": "WlGk4Daj", "analysis_id": "klGvyp7E"}
TAG = {"kind": "growingio.tag_users"}
CLUSTER = {"kind": "thinkingdata.cluster_users", "project_id": 1}
GROUP = {"kind": "sensorsdata.user_group_users"}

REFUSALS: list[tuple[str, Any, str]] = [
    ("no-json", "{", "request"),
    ("a-list", "[]", "request"),
    ("nothing", "", "request"),
    ("not-utf-8", '{"connection": "\udcff"}', "request"),
    ("too-large", json.dumps({"connection": "x" * 70_000}), "request"),
    ("no-connection", {"export": EXPORT}, "connection"),
    ("unknown-connection", {"connection": "unknown", "export": EXPORT}, "connection"),
    ("connection-of-another-platform", rest() | {"connection": "gio"}, "connection"),
    ("no-export", {"connection": "gio"}, "export"),
    ("unknown-kind", changed(kind="growingio.everything"), "export.kind"),
    ("no-kind", changed(kind=None), "export.kind"),
    ("unknown-field", REQUEST | {"priority": 1}, "priority"),
    ("unknown-field-of-export", changed(segment="x"), "export.segment"),
    ("unknown-field-of-output", REQUEST | {"output": {"format": "csv"}}, "output.format"),
    ("missing-project", changed(project_id=None), "export.project_id"),
    ("missing-segment", changed(segment_id=None), "export.segment_id"),
    ("bad-hash-id", changed(segment_id="short"), "export.segment_id"),
    ("properties-no-list", changed(properties="a"), "export.properties"),
    ("tags-no-hash-id", changed(tags=["x y"]), "export.tags"),
    ("tag-without-key-or-id", {"connection": "gio", "export": TAG}, "tag_key"),
    ("tag-with-both", {"connection": "gio", "export": TAG | {"tag_key": "k", "tag_id": "mgGJj3GA"}}, "tag_key"),
    (
        "detail-no-boolean",
        {"connection": "gio", "export": TAG | {"tag_key": "k", "detail_export": "yes"}},
        "detail_export",
    ),
    ("analysis-without-type", {"connection": "gio", "export": ANALYSIS}, "export.analysis_type"),
    ("analysis-type", {"connection": "gio", "export": ANALYSIS | {"analysis_type": "PIES"}}, "export.analysis_type"),
    ("61-properties", rest(properties=[f"p{number}" for number in range(61)]), "export.properties"),
    ("file-format", rest(file_format="xlsx"), "export.file_format"),
    ("csv-header-of-json", rest(file_format="json", csv_header_type="key"), "csv_header_type"),
    (
        "project-no-integer",
        {"connection": "ta", "export": CLUSTER | {"project_id": "1", "cluster_id": 1}},
        "export.project_id",
    ),
    ("cluster-without-id-or-name", {"connection": "ta", "export": CLUSTER}, "cluster_id"),
    (
        "cluster-with-both",
        {"connection": "ta", "export": CLUSTER | {"cluster_id": 1, "cluster_name": "n"}},
        "cluster_id",
    ),
    ("group-without-id", {"connection": "sa", "export": GROUP}, "export.group_id"),
    (
        "base-times",
        {"connection": "sa", "export": GROUP | {"group_id": 1, "base_times": ["today"]}},
        "export.base_times",
    ),
    ("charset", REQUEST | {"output": {"charset": "UTF-99"}}, "output.charset"),
    ("codec-that-is-no-charset", REQUEST | {"output": {"charset": "base64"}}, "output.charset"),
    ("compression", REQUEST | {"output": {"compression": "rar"}}, "output.compression"),
    ("deadline-zero", REQUEST | {"deadline_s": 0}, "deadline_s"),
    ("deadline-text", REQUEST | {"deadline_s": "soon"}, "deadline_s"),
    ("empty-idempotency-key", REQUEST | {"idempotency_key": ""}, "idempotency_key"),
    ("metadata-number", REQUEST | {"metadata": {"order": 42}}, "metadata.order"),
    ("metadata-nested", REQUEST | {"metadata": {"order": {}}}, "metadata.order"),
    ("metadata-too-large", REQUEST | {"metadata": {"order": "x" * 5000}}, "metadata"),
]


@pytest.fixture
def all_platforms(site: Site) -> Site:
    """A site with a connection of each platform, so that the connection is never the reason of a refusal."""
    site.settings = {
        "connections": {
            "gio": {"platform": "growingio", "base_url": site.platform_url},
            "rest": {"platform": "growingio-rest", "base_url": site.platform_url},
            "ta": {"platform": "thinkingdata", "base_url": site.platform_url},
            "sa": {"platform": "sensorsdata", "base_url": site.platform_url},
        }
    }
    return site


@pytest.mark.parametrize(("request_", "field"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_enqueue_of_invalid_request_exits_2_names_the_field_and_enqueues_nothing(
    all_platforms: Site, request_: Any, field: str
) -> None:
    body = request_ if isinstance(request_, str) else json.dumps(request_)
    path = all_platforms.outputs / f"request-{all_platforms.namespace}.json"
    path.write_bytes(body.encode("utf-8", "surrogateescape"))

    ran = all_platforms.command("enqueue", str(path), "--json")

    assert ran.status == 2, ran
    assert field in ran.stderr
    assert "Traceback" not in ran.stderr
    answer = json.loads(ran.stdout)["error"]
    assert answer["code"] == "invalid_request"
    assert any(field in problem["field"] or field in problem["message"] for problem in answer["fields"])
    assert keys(all_platforms) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("enqueue",),
        ("enqueue", "/no/such/file"),
        ("enqueue", "-", "--timeout", "5"),
        ("enqueue", "-", "--wait", "--timeout", "-1"),
        ("list", "--phase", "sleeping"),
        ("list", "--limit", "0"),
        ("run", "--role", "cook"),
        ("schema", "everything"),
        ("catalog", "gio", "planets"),
        ("catalog", "unknown", "projects"),
        ("catalog", "gio", "segments"),
        ("no-such-command",),
    ],
    ids=" ".join,
)
def test_wrong_arguments_exit_2_without_a_traceback(site: Site, arguments: tuple[str, ...]) -> None:
    ran = site.command(*arguments, stdin=json.dumps(REQUEST))

    assert ran.status == 2, ran
    assert ran.stderr
    assert "Traceback" not in ran.stderr
    assert keys(site) == []


def test_request_from_a_file_is_accepted_and_returned_by_status_and_list(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps(REQUEST), encoding="utf-8")

    accepted = json.loads(site.command("enqueue", str(file), "--json").stdout)
    status = json.loads(site.command("status", accepted["export_id"], "--json").stdout)
    listed = json.loads(site.command("list", "--phase", "queued", "--json").stdout)

    assert accepted == {"export_id": accepted["export_id"], "phase": "queued", "deduplicated": False}
    assert status["export_id"] == accepted["export_id"]
    assert (status["phase"], status["connection"], status["kind"]) == ("queued", "gio", EXPORT["kind"])
    assert listed == [status]
    assert json.loads(site.command("list", "--phase", "failed", "--json").stdout) == []


def test_enqueue_with_same_key_returns_first_export_or_refuses_other_body(site: Site) -> None:
    first = json.loads(enqueue(site, REQUEST, "--idempotency-key", "order-42", "--json").stdout)
    again = json.loads(enqueue(site, REQUEST | {"idempotency_key": "order-42"}, "--json").stdout)
    other = enqueue(site, changed(segment_id="AVpZBzpK"), "--idempotency-key", "order-42", "--json")

    assert again == {**first, "deduplicated": True}
    assert other.status == 2
    error = json.loads(other.stdout)["error"]
    assert (error["code"], [field["field"] for field in error["fields"]]) == (
        "idempotency_conflict",
        ["export.segment_id"],
    )
    assert "with another request (export.segment_id differs); use a new key" in other.stderr
    assert len(json.loads(site.command("list", "--json").stdout)) == 1


async def test_enqueue_with_wait_prints_the_final_status(site: Site) -> None:
    import asyncio

    async with worker_site.worker(site):
        ran = await asyncio.to_thread(enqueue, site, REQUEST, "--wait", "--timeout", "30", "--json")
        plain = await asyncio.to_thread(enqueue, site, REQUEST, "--wait")

    assert ran.status == 0, ran
    status = json.loads(ran.stdout)
    assert (status["phase"], len(status["objects"])) == ("succeeded", 1)
    assert plain.status == 0
    assert "succeeded" in plain.stdout


def test_enqueue_with_wait_exits_1_after_timeout_and_export_stays_queued(site: Site) -> None:
    ran = enqueue(site, REQUEST, "--wait", "--timeout", "0.3", "--json")

    assert ran.status == 1
    status = json.loads(ran.stdout)
    assert status["phase"] == "queued"
    assert json.loads(site.command("status", status["export_id"], "--json").stdout)["phase"] == "queued"


async def test_wait_for_failed_export_exits_1(site: Site) -> None:
    import asyncio

    async with worker_site.worker(site):
        ran = await asyncio.to_thread(enqueue, site, changed(segment_id="Unkn0wn1"), "--wait", "--json")
        export_id = json.loads(ran.stdout)["export_id"]
        watched = await asyncio.to_thread(site.command, "watch", export_id, "--json")

    assert ran.status == 1
    assert json.loads(ran.stdout)["error"]["code"] == "platform_refused"
    assert watched.status == 1
    assert [json.loads(line)["phase"] for line in watched.stdout.splitlines()] == ["failed"]


@pytest.mark.parametrize("command", ["status", "watch"])
def test_read_of_unknown_export_exits_3(site: Site, command: str) -> None:
    ran = site.command(command, "0" * 32, "--json")

    assert ran.status == 3
    assert json.loads(ran.stdout)["error"]["code"] == "not_found"
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("arguments", [("status", "x"), ("list",), ("enqueue", "-"), ("run",)], ids=lambda it: it[0])
def test_unreachable_redis_exits_4_and_names_its_address_without_password(
    site: Site, arguments: tuple[str, ...]
) -> None:
    port = free_port()
    ran = site.command(
        *arguments, stdin=json.dumps(REQUEST), EXPORT_REDIS_URL=f"redis://:hidden-word@127.0.0.1:{port}/0"
    )

    assert ran.status == 4, ran
    assert f"127.0.0.1:{port}" in ran.stderr
    assert "hidden-word" not in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr


def test_unreachable_platform_exits_4(site: Site) -> None:
    ran = site.command(
        "catalog", "gio", "projects", EXPORT_CONNECTIONS__GIO__BASE_URL=f"http://127.0.0.1:{free_port()}"
    )

    assert ran.status == 4, ran
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("resource", ["projects", "tags", "segments", "funnels", "events", "retentions", "frequencies"])
async def test_catalog_lists_ids_and_names(site: Site, resource: str) -> None:
    import asyncio

    project = [] if resource == "projects" else ["--project", "WlGk4Daj"]
    ran = await asyncio.to_thread(site.command, "catalog", "gio", resource, *project, "--json")
    plain = await asyncio.to_thread(site.command, "catalog", "gio", resource, *project)

    items = json.loads(ran.stdout)
    assert items
    assert all(item["id"] and item["name"] for item in items)
    assert all(item["id"] in plain.stdout for item in items)


@pytest.mark.parametrize("document", ["request", "status", "event", "config"])
def test_schema_prints_each_document(site: Site, document: str) -> None:
    schema = json.loads(site.command("schema", document).stdout)

    assert schema["type"] == "object"
    assert schema["properties"]


@pytest.mark.parametrize(
    ("variable", "value", "setting"),
    [
        ("EXPORT_S3__KEY_TEMPLATE", "{file_name}/{password}", "s3.key_template"),
        ("EXPORT_CONNECTIONS__GIO__TOKEN", "env:NOT_SET_ANYWHERE", "connections.gio.token"),
        ("EXPORT_CONNECTIONS__GIO__TOKEN", "file:/no/such/secret", "connections.gio.token"),
        ("EXPORT_CONNECTIONS__GIO__AUTH_SCHEME", "Basic", "connections.gio.auth_scheme"),
        ("EXPORT_CONNECTIONS__GIO__COLOUR", "red", "connections.gio.colour"),
        ("EXPORT_CONNECTIONS__GIO__PLATFORM", "myspace", "connections.gio.platform"),
        ("EXPORT_CONNECTIONS__GIO__BASE_URL", "ftp://x", "connections.gio.base_url"),
        ("EXPORT_REDIS_URL", "http://127.0.0.1", "redis_url"),
        ("EXPORT_CONFIG", "/no/such/file.toml", "/no/such/file.toml"),
    ],
)
def test_run_with_wrong_setting_exits_2_and_names_it(site: Site, variable: str, value: str, setting: str) -> None:
    ran = site.command("run", "--burst", **{variable: value})

    assert ran.status == 2, ran
    assert setting in ran.stderr
    assert "Traceback" not in ran.stderr


def test_json_is_valid_in_an_encoding_without_its_characters(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EXPORT_")}
    ran = subprocess.run(
        [*COMMAND, "catalog", "Zürich-中-😀", "segments", "--json"],
        env=environment | {"PYTHONIOENCODING": "latin-1"},
        cwd=tmp_path,
        capture_output=True,
        encoding="latin-1",
        check=False,
    )
    assert "Zürich-中-😀" in json.loads(ran.stdout)["error"]["message"], ran


def test_worker_warns_of_a_variable_that_is_probably_a_misspelt_setting(site: Site) -> None:
    ran = site.command("run", "--burst", EXPORT_S3_BUCKET="other", EXPORT_OF_THE_DAY="x")
    (warning,) = [line for line in map(json.loads, ran.stderr.splitlines()) if line["event"] == "setting.ignored"]
    assert (ran.status, warning["level"]) == (0, "warning")
    assert (warning["variable"], warning["advice"]) == ("EXPORT_S3_BUCKET", "did you mean EXPORT_S3__BUCKET?")


async def test_run_with_burst_exits_when_no_export_is_open(site: Site) -> None:
    import asyncio

    async with site.queue() as queue:
        accepted = [await queue.enqueue(json.dumps(REQUEST)) for _ in range(3)]
        ran = await asyncio.to_thread(site.command, "run", "--burst")
        phases = {(await queue.status(answer.export_id)).phase for answer in accepted}

    assert ran.status == 0, ran
    assert phases == {"succeeded"}
    assert all(json.loads(line)["event"] for line in ran.stderr.splitlines())
