"""The configuration: a sample file, overrides from the environment, and errors that name the setting."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from export_worker.config import Config, load_config
from export_worker.config.sinks import RedisStreamSink
from export_worker.config.triggers import RedisStreamTrigger
from export_worker.credentials import reveal
from export_worker.errors import ConfigError
from export_worker.platforms.settings import ConnectionSettings, platform_settings

CANARY = "canary-S3cret"

SAMPLE = """
redis_url = "redis://127.0.0.1:6379/0"     # redis://, rediss://, unix://
namespace = "exports"                       # first part of every Redis key and of the queue names

[s3]
bucket = "my-exports"
prefix = ""                                 # put before every key
region = "us-east-1"
endpoint_url = "http://127.0.0.1:9000"      # omit it for AWS
key_template = "{kind}/dt={date}/{export_id}/{file_name}"

[connections.gio]                           # a request names a connection; it never contains a secret
platform = "growingio"                      # growingio | growingio-rest | thinkingdata | sensorsdata
base_url = "https://op.example.cn"
token = "env:GIO_TOKEN"                     # or client_secret = "…" for the OAuth grant of the platform
auth_scheme = "Token"                       # Token | Bearer | raw (growingio; default Token)
poll = { first_s = 2.0, max_s = 60.0, deadline_s = 86400 }
max_in_flight = 8                           # exports of this connection that run on the platform at once
requests_per_second = 5
allow_hosts = []                            # further hosts that a download may come from

[connections.sensors]
platform = "sensorsdata"
base_url = "https://sa.example.cn"
project = "default"
token = "file:/run/secrets/sa-token"        # or api_key = "…" for the v3 API

[sinks.stream]                              # destination of completion events; the default if no sink is configured
type = "redis-stream"                       # redis-stream | webhook | sqs | sns | eventbridge | broker
stream = "exports:events"

[triggers.segment-ready]
type = "redis-stream"                       # redis-stream | sqs | broker
stream = "segment-events"
group = "export-worker"
request = { connection = "gio", export = { kind = "growingio.segment_users", project_id = "{data.project}", segment_id = "{data.segment}" } }

[gateway]
host = "127.0.0.1"
port = 8080
api_keys = ["env:GATEWAY_KEY"]
"""  # noqa: E501 - an inline table of TOML must be on one line

GIO = '[connections.gio]\nplatform = "growingio"\nbase_url = "https://op.example.cn"\n'

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.upper().startswith("EXPORT_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the file that is loaded by default."""

    def written(text: str) -> Path:
        file = tmp_path / "export-worker.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return written


def load_error() -> str:
    with pytest.raises(ConfigError) as caught:
        load_config()
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


# Configurations that load


def test_sample_configuration_loads_with_its_values(write: Write) -> None:
    write(SAMPLE)
    config = load_config()
    assert (config.redis_url, config.namespace) == ("redis://127.0.0.1:6379/0", "exports")
    assert config.s3.model_dump(exclude_defaults=True) == {
        "bucket": "my-exports",
        "endpoint_url": "http://127.0.0.1:9000",
    }
    gio = config.connections["gio"]
    assert (gio.platform, gio.base_url, gio.token) == ("growingio", "https://op.example.cn", SecretStr("env:GIO_TOKEN"))
    assert gio.poll.model_dump() == {"first_s": 2.0, "max_s": 60.0, "deadline_s": 86400.0}
    assert (gio.max_in_flight, gio.requests_per_second, gio.allow_hosts) == (8, 5.0, ())
    assert gio.model_extra == {"auth_scheme": "Token"}
    assert config.connections["sensors"].model_extra == {"project": "default"}
    assert config.platforms() == {"gio": "growingio", "sensors": "sensorsdata"}
    assert config.sinks["stream"] == RedisStreamSink(stream="exports:events")
    trigger = config.triggers["segment-ready"]
    assert isinstance(trigger, RedisStreamTrigger)
    assert (trigger.stream, trigger.group) == ("segment-events", "export-worker")
    assert trigger.request is not None
    assert trigger.request["export"]["segment_id"] == "{data.segment}"
    assert (config.gateway.host, config.gateway.port) == ("127.0.0.1", 8080)
    assert {setting: secret.get_secret_value() for setting, secret in config.secrets()} == {
        "connections.gio.token": "env:GIO_TOKEN",
        "connections.sensors.token": "file:/run/secrets/sa-token",
        "gateway.api_keys.0": "env:GATEWAY_KEY",
    }


def test_configuration_without_file_has_defaults() -> None:
    config = load_config()
    assert config.redis_url == "redis://127.0.0.1:6379/0"
    assert config.s3.key_template == "{kind}/dt={date}/{export_id}/{file_name}"
    assert config.sinks == {"stream": RedisStreamSink(stream="exports:events")}
    assert config.connections == {}


def test_load_reads_file_named_by_variable_or_argument(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / f"{name}.toml").write_text(f'namespace = "{name}"')
    monkeypatch.setenv("EXPORT_CONFIG", "one.toml")
    assert load_config().namespace == "one"
    assert load_config(str(tmp_path / "other.toml")).namespace == "other"


# The environment


def test_variables_override_file_at_every_level(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write(SAMPLE)
    for name, value in {
        "EXPORT_REDIS_URL": f"rediss://:{CANARY}@redis.example:6380/1",
        "EXPORT_S3__BUCKET": "other-bucket",
        "EXPORT_CONNECTIONS__GIO__TOKEN": CANARY,
        "EXPORT_CONNECTIONS__GIO__POLL__FIRST_S": "0.5",
        "EXPORT_CONNECTIONS__GIO__ALLOW_HOSTS": '["cdn.example.cn"]',
        "EXPORT_CONNECTIONS__GIO__AUTH_SCHEME": "Bearer",
        "EXPORT_GATEWAY__PORT": "9090",
        "EXPORT_GATEWAY__API_KEYS": f'["{CANARY}"]',
        "EXPORT_WORKER__LEASE_S": "3",
        "EXPORT_SINKS__STREAM__STREAM": "elsewhere",
    }.items():
        monkeypatch.setenv(name, value)
    config = load_config()
    assert config.redis_url.endswith("@redis.example:6380/1")
    assert (config.s3.bucket, config.s3.endpoint_url) == ("other-bucket", "http://127.0.0.1:9000")
    gio = config.connections["gio"]
    assert gio.token is not None
    assert reveal(gio.token, "") == CANARY
    assert (gio.poll.first_s, gio.poll.deadline_s) == (0.5, 86400.0)
    assert (gio.base_url, gio.allow_hosts) == ("https://op.example.cn", ("cdn.example.cn",))
    assert gio.model_extra == {"auth_scheme": "Bearer"}
    assert (config.gateway.port, config.gateway.host) == (9090, "127.0.0.1")
    assert config.gateway.api_keys == (SecretStr(CANARY),)
    assert (config.worker.lease_s, config.worker.transfers) == (3.0, 4)
    assert config.sinks == {"stream": RedisStreamSink(stream="elsewhere", max_length=100_000)}


@pytest.mark.parametrize("token", ["12345", "true", "null", "[1]", '{"a": 1}', "1e5", " x ", "a__b"])
def test_token_from_variable_is_not_parsed(write: Write, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    write(GIO)
    monkeypatch.setenv("EXPORT_CONNECTIONS__GIO__TOKEN", token)
    assert load_config().connections["gio"].token == SecretStr(token)


def test_variables_alone_define_a_connection(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    write(GIO)
    monkeypatch.setenv("EXPORT_CONNECTIONS__SENSORS__PLATFORM", "sensorsdata")
    monkeypatch.setenv("EXPORT_CONNECTIONS__SENSORS__BASE_URL", "https://sa.example.cn")
    monkeypatch.setenv("EXPORT_CONNECTIONS__SENSORS__API_KEY", "env:SA_KEY")
    config = load_config()
    assert config.platforms() == {"gio": "growingio", "sensors": "sensorsdata"}
    assert config.connections["sensors"].api_key == SecretStr("env:SA_KEY")


def test_variable_with_json_defines_a_whole_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORT_S3", '{"bucket": "json-bucket", "prefix": "p/"}')
    assert (load_config().s3.bucket, load_config().s3.prefix) == ("json-bucket", "p/")


# Errors


HOOK = "[sinks.a]\ntype = 'webhook'\nurl = 'https://a'\nsecret = 'x'\n"
BROKER = f"[{{}}.a]\ntype = 'broker'\nbroker = '{{}}'\nurl = '{CANARY}'\n"
REFUSALS = [
    ('redis_ulr = "x"', "redis_ulr: unknown setting"),
    ("[s3]\nbuket = 'abc'", "s3.buket: unknown setting"),
    ("[s3]\nserver_side_encryption = 'AES128'", "s3.server_side_encryption: must be 'AES256', 'aws:kms' or"),
    ("[s3]\nsse_kms_key_id = 'k'", "s3.sse_kms_key_id needs server_side_encryption"),
    ("[s3]\nserver_side_encryption = 'AES256'\nsse_kms_key_id = 'k'", "s3.sse_kms_key_id needs server_side_encryption"),
    ("[s3]\nstorage_class = 'COLD'", "s3.storage_class: must be 'STANDARD'"),
    ("[s3]\nexpected_bucket_owner = 'me'", "s3.expected_bucket_owner: "),
    ("[s3]\ntags = { 'a&b' = 'x' }", "s3.tags.a&b: "),
    ("[s3]\ntags = { 'aws:x' = 'x' }", "s3.tags must not begin with aws:"),
    ("[s3.tags]\n" + "\n".join(f"t{n} = 'x'" for n in range(11)), "s3.tags: "),
    ("[s3]\nrole_arn = 'exports'", "s3.role_arn: "),
    ("[s3]\nexternal_id = 'x7'", "s3.external_id needs role_arn"),
    (GIO + "s3 = { sse_kms_key_id = 'k' }", "connections.gio.s3.sse_kms_key_id needs server_side_encryption"),
    ("[s3]\nendpoint_url = 's3:9000'", "s3.endpoint_url: must be http://HOST or https://HOST"),
    (GIO + "s3 = { bucket = 'ab' }", "connections.gio.s3.bucket: "),
    (GIO + "s3 = { prefix = '\u200e' }".replace("'", '"'), "connections.gio.s3.prefix must not contain control"),
    (GIO + f"s3 = {{ prefix = '{'p' * 900}' }}", "connections.gio.s3.prefix the key would have up to"),
    (GIO + "s3 = { region = 'x' }", "connections.gio.s3.region: unknown setting"),
    ("[worker]\nslots = 1", "worker.slots: unknown setting"),
    ("[gateway]\nkey = 'x'", "gateway.key: unknown setting"),
    ("[sinks.a]\ncolour = 'x'", "sinks.a.colour: unknown setting"),
    (
        GIO + "submit_windows = { open = ['06:00-23:00', '6-7'] }",
        "connections.gio.submit_windows.open.1 must be hours",
    ),
    (GIO + "submit_windows = { timezone = 'CST6' }", "connections.gio.submit_windows.timezone must be a time zone"),
    (GIO + "submit_windows = { closed = ['00:00-24:00'] }", "connections.gio.submit_windows: must leave a minute"),
    (GIO + "submit_windows = { opened = [] }", "connections.gio.submit_windows.opened: unknown setting"),
    (GIO + "retry_operation = { times = 11 }", "connections.gio.retry_operation.times: must be at most 10, not 11"),
    (GIO + "retry_operation = { after_s = 0 }", "connections.gio.retry_operation.after_s: must be at least 1, not 0"),
    (GIO + "poll = { first = 1 }", "connections.gio.poll.first: unknown setting"),
    ("[connections.gio]\nbase_url = 'https://a'", "connections.gio.platform: is required"),
    ("[connections.gio]\nplatform = 'growingio'", "connections.gio.base_url: is required"),
    ("[connections.gio]\nplatform = ''\nbase_url = 'https://a'", "connections.gio.platform: "),
    ("[connections.'a b']\nplatform = 'x'\nbase_url = 'https://a'", "connections.a b"),
    (f"[connections.gio]\nplatform = 'x'\nbase_url = 'https://u:{CANARY}@a'", "connections.gio.base_url: "),
    (f"[connections.gio]\nplatform = 'x'\nbase_url = 'https://a?token={CANARY}'", "connections.gio.base_url: "),
    (f"[connections.gio]\nplatform = 'x'\nbase_url = 'ftp://a/{CANARY}'", "connections.gio.base_url: "),
    (GIO + f"token = ['{CANARY}']", "connections.gio.token: "),
    (GIO + "token = 5", "connections.gio.token: "),
    (GIO + "poll = { first_s = 0 }", "connections.gio.poll.first_s: "),
    (GIO + "poll = { max_s = inf }", "connections.gio.poll.max_s: "),
    (GIO + "poll = { deadline_s = nan }", "connections.gio.poll.deadline_s: "),
    (GIO + "poll = { deadline_s = 2592001 }", "connections.gio.poll.deadline_s: "),
    (GIO + "max_in_flight = 0", "connections.gio.max_in_flight: "),
    (GIO + "requests_per_second = inf", "connections.gio.requests_per_second: "),
    (f"connections = '{CANARY}'", "connections: "),
    (f"[connections]\ngio = '{CANARY}'", "connections.gio: "),
    ("[gateway]\nport = 2026-11-30", "gateway.port: must be a whole number, not a date"),
    ("[sinks.'a b']\ntype = 'sns'\ntopic_arn = ''", "sinks.a b: the name must have 1 to 64 characters: letters"),
    (f"redis_url = 'redis://:p@{CANARY}/x@redis:6379/0'", "redis_url: must be redis://"),
    (f"redis_url = 'rediss://:p@{CANARY}#x@redis:6379'", "redis_url: must be redis://"),
    ("namespace = 'a b'", "namespace: must have 1 to 64 characters: letters, digits, _, . and -"),
    ("namespace = ''", "namespace: "),
    (GIO + "allow_hosts = ['http://a']", "connections.gio.allow_hosts.0: must be a host or host:port"),
    (
        GIO + "allow_networks = ['10.0.0.1/8']",
        (
            "connections.gio.allow_networks.0: must be a network, such as 10.1.0.0/16, not "
            '"10.0.0.1/8" (in export-worker.toml, line 4); did you mean 10.0.0.0/8?'
        ),
    ),
    (
        "[sinks.a]\ntype = 'kafka'",
        (
            "sinks.a.type: must be one of broker, eventbridge, redis-stream, sns, sqs, webhook, not "
            '"kafka" (in export-worker.toml, line 2); write type = "broker" and broker = "kafka"'
        ),
    ),
    (
        BROKER.format("triggers", "rabbit") + "source = 'x'",
        "triggers.a.broker: must be 'rabbitmq', 'nats' or 'kafka', not",
    ),
    ("namespace = '{}'", "namespace: must have 1 to 64 characters: letters, digits, _, . and -"),
    ("namespace = '{a'", "namespace: "),
    ("namespace = '{a}{b}'", "namespace: "),
    (f"namespace = '{65 * 'a'}'", "namespace: "),
    ("[s3]\nbucket = 'ab'", "s3.bucket: "),
    ("[s3]\nendpoint_url = '127.0.0.1:9000'", "s3.endpoint_url: "),
    (f"[s3]\nendpoint_url = 'http://k:{CANARY}@127.0.0.1'", "s3.endpoint_url: "),
    ("[s3]\nkey_template = '{kind}/{export_id}'", "s3.key_template must contain {file_name}"),
    ("[s3]\nkey_template = '{kind}/{oops}/{file_name}'", "s3.key_template {oops} is not allowed"),
    ("[s3]\nkey_template = '{metadata}/{file_name}'", "s3.key_template {metadata} is not allowed"),
    ("[s3]\nkey_template = '{file_name!r}'", "s3.key_template {file_name} is not allowed in this form"),
    ("[s3]\nkey_template = '{file_name'", "s3.key_template is not a valid template"),
    ("[s3]\nkey_template = 'a\\u0007{file_name}'".replace("'", '"'), "s3.key_template must not contain control"),
    (f"[s3]\nprefix = '{'p' * 900}'", "s3.key_template the key would have up to"),
    (
        "[sinks.a]\ntype = 'pigeon'",
        "sinks.a.type: must be one of broker, eventbridge, redis-stream, sns, sqs, webhook, not",
    ),
    (
        "[sinks.a]\ntype = 'webhok'",
        "sinks.a.type: must be one of broker, eventbridge, redis-stream, sns, sqs, webhook, not",
    ),
    (HOOK + "colour = 'x'", "sinks.a.colour: unknown setting"),
    (HOOK + "timeout_s = 31", "sinks.a.timeout_s: "),
    (f"[sinks.a]\ntype = 'webhook'\nurl = 'ftp://{CANARY}'\nsecret = 'x'", "sinks.a.url: must be an http"),
    ("[sinks.a]\ntype = 'webhook'\nurl = 'https://a'", "sinks.a.secret: is required"),
    ("[sinks.a]\ntype = 'sqs'", "sinks.a.queue_url: is required"),
    ("[sinks.a]\ntype = 'sns'\ntopic_arn = 'x'", "sinks.a.topic_arn: "),
    (BROKER.format("sinks", "nats") + "destination = 'x'", "sinks.a.stream is required for nats"),
    (BROKER.format("sinks", "kafka") + "destination = 'x'\nexchange = 'y'", "sinks.a.exchange is allowed only"),
    (
        BROKER.format("sinks", "rabbitmq") + "destination = 'x'\nenable_idempotence = true",
        "sinks.a.enable_idempotence is allowed only for kafka",
    ),
    (BROKER.format("triggers", "kafka") + "source = 'x'\nstream = 'y'", "triggers.a.stream is required for nats"),
    (
        "[triggers.a]\nstream = 'x'",
        "triggers.a.type: is required with stream (in export-worker.toml, line 1); one of broker, redis-stream",
    ),
    ("[triggers.a]\ntype = 'redis-stream'", "triggers.a.stream: is required"),
    (
        f"[sinks.a]\nurl = 'https://{CANARY}'",
        "sinks.a.type: is required with url (in export-worker.toml, line 1); one of broker, webhook",
    ),
    (
        f"[sinks.a]\nurl = 'https://a'\nsecret = '{CANARY}'",
        "sinks.a.type: is required with url, secret (in export-worker.toml, line 1); it must be webhook",
    ),
    (
        "[sinks.a]\nqueue_url = 'https://a'\nat_once = 2\ncolour = 'x'",
        "sinks.a.type: is required with queue_url (in export-worker.toml, line 1); it must be sqs",
    ),
    (
        "[sinks.a]\ntype = 'redis-stream'\nurl = 'https://a'",
        "sinks.a.url: unknown setting (in export-worker.toml, line 3); the types broker, webhook have it",
    ),
    (
        "[sinks.a]\ntype = 'sqs'\nqueue_url = 'https://a'\nevent_bus = 'x'",
        "sinks.a.event_bus: unknown setting (in export-worker.toml, line 4); the type eventbridge has it",
    ),
    (
        "[triggers.a]\nqueue_url = 'https://a'",
        "triggers.a.type: is required with queue_url (in export-worker.toml, line 1); it must be sqs",
    ),
    (
        "[connections.gio]\nbase_url = 'https://a'",
        "connections.gio.platform: is required (in export-worker.toml, line 1); such as growingio, growingio-rest, ",
    ),
    (
        "[sinks.a]\ntype = 'broker'\nurl = 'x'\ndestination = 'y'",
        "sinks.a.broker: is required (in export-worker.toml, line 1); one of rabbitmq, nats, kafka",
    ),
    (
        "[gateway.keys.a]\nkey = 'x'",
        "gateway.keys.a.role: is required (in export-worker.toml, line 1); one of viewer, service, operator, admin",
    ),
    ("[triggers.a]\ntype = 'sqs'\nqueue_url = 'http://q'\nvisibility_s = 2", "triggers.a.visibility_s: "),
    ("[gateway]\nport = 65536", "gateway.port: must be at most 65535, not 65536 (in export-worker.toml, line 2)"),
    (
        "[gateway]\nport = 'env:PORT'",
        'gateway.port: must be a whole number, not "env:PORT" (in export-worker.toml, line 2); env:',
    ),
    ("[gateway]\nport = 80.5", "gateway.port: must be a whole number, not 80.5"),
    ("[gateway]\nport = true\nhost = 1", "gateway.host: must be text in quotes, not a number"),
    ("gateway = 8080", "gateway: must be a section with settings, not a number"),
    ("[worker]\ntracing = 'maybe'", 'worker.tracing: must be true or false, not "maybe"'),
    (
        GIO + "allow_networks = ['intranet']",
        'connections.gio.allow_networks.0: must be a network, such as 10.1.0.0/16, not "i',
    ),
    ("bucket = 'abc'", "bucket: unknown setting (in export-worker.toml, line 1); it belongs into [s3]"),
    (
        "[s3]\nnamespace = 'x'",
        "s3.namespace: unknown setting (in export-worker.toml, line 2); it belongs to the top of the",
    ),
    ("[s3]\nBucket = 'x'", "s3.Bucket: unknown setting (in export-worker.toml, line 2); did you mean bucket?"),
    (
        "[s3]\nkolour = 'x'",
        "s3.kolour: unknown setting (in export-worker.toml, line 2); export-worker schema config lists",
    ),
    (
        "[conections.gio]\nplatform = 'x'",
        "conections: unknown setting (in export-worker.toml, line 1); did you mean connections?",
    ),
    (HOOK + "timeout = 3", "sinks.a.timeout: unknown setting (in export-worker.toml, line 5); did you mean timeout_s?"),
    (f"[gateway]\napi_keys = '{CANARY}'", "gateway.api_keys: "),
    (f"[gateway]\napi_keys = [['{CANARY}']]", "gateway.api_keys.0: "),
    ("[worker]\nlease_s = inf", "worker.lease_s: "),
    (
        "[worker]\nlease_s = 2.9",
        "worker.lease_s: must be at least 3 (seconds): a worker renews its leases once a second",
    ),
    ("[worker]\nlease_s = nan", "worker.lease_s: "),
    ("[retry]\nmax_attempts = 0", "retry.max_attempts: "),
    ("[transfer]\nmemory_mib = 8", "transfer.memory_mib: "),
    (f"redis_url = 'http://:{CANARY}@h'", "redis_url: must be redis://, rediss://, unix:// or sentinel://"),
    (f"redis_url = 'redis://u:{CANARY}/x@h:6379'", "redis_url: must be redis://"),
    (f"redis_url = 'redis://[{CANARY}'", "redis_url: must be redis://"),
    (f"redis_url = ['{CANARY}']", "redis_url: "),
]
CONTRADICTIONS = [
    (
        GIO + "poll = { first_s = 10, max_s = 2.5 }",
        "connections.gio.poll.first_s must not exceed max_s (10 is above 2.5) (in export-worker.toml, line 4)",
    ),
    (GIO + "poll = { first_s = 10, deadline_s = 5 }", "connections.gio.poll.first_s must not exceed deadline_s (10"),
    (GIO + "poll = { first_s = 99 }", "connections.gio.poll.first_s must not exceed max_s (99 is above 60, the"),
    ("[retry]\nfirst_s = 10\nmax_s = 2", "retry.first_s must not exceed max_s (10 is above 2)"),
    (
        "[worker]\nbreaker_max_s = 2\nbreaker_first_s = 10",
        "worker.breaker_first_s must not exceed breaker_max_s (10 is above 2) (in export-worker.toml, line 3)",
    ),
    ("[sinks.a]\nretry_first_s = 10\nretry_max_s = 2", "sinks.a.retry_first_s must not exceed retry_max_s (10 is"),
    (HOOK + "retry_first_s = 10\nretry_max_s = 2", "sinks.a.retry_first_s must not exceed retry_max_s (10 is above 2"),
    ("[sinks.a]\nretry_first_s = 10\ngive_up_after_s = 2", "sinks.a.retry_first_s must not exceed give_up_after_s (1"),
]
"""Two settings of one section that cannot both hold."""
REFUSALS += CONTRADICTIONS


@pytest.mark.parametrize(("toml", "message"), [pytest.param(*row, id=row[1].split(":")[0][:40]) for row in REFUSALS])
def test_error_names_the_setting(write: Write, toml: str, message: str) -> None:
    write(toml)
    assert load_error().startswith(message)


def test_default_follows_the_limit_that_is_set(write: Write) -> None:
    write(GIO + "poll.max_s = 0.5\n[retry]\nmax_s = 0.5\n[worker]\nbreaker_max_s = 1\n[sinks.a]\nretry_max_s = 0.5")
    config = load_config()
    platform_settings("gio", config.connections["gio"], ConnectionSettings)
    assert (config.retry.max_s, config.worker.breaker_max_s) == (0.5, 1.0)


def test_error_names_every_wrong_setting(write: Write) -> None:
    file = write("namespace = ''\n[s3]\nbuket = 'x'\nbucket = ''\n" + GIO + "max_in_flight = 0")
    message = load_error()
    assert f"s3.buket: unknown setting (in {file.name}, line 3); did you mean bucket?" in message
    assert all(f"{name}: " in message for name in ("namespace", "s3.bucket", "connections.gio.max_in_flight"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("EXPORT_S3__BUKET", CANARY, "s3.buket: unknown setting (in EXPORT_S3__BUKET); did you mean bucket?"),
        ("EXPORT_REDIS_URL", f"redis://u:{CANARY}/x@h", "redis_url: must be"),
        (
            "EXPORT_GATEWAY__PORT",
            CANARY,
            "gateway.port: must be a whole number, not a text of 13 characters (in EXPORT_G",
        ),
        ("EXPORT_GATEWAY__PORT", "many", 'gateway.port: must be a whole number, not "many" (in EXPORT_GATEWAY__PORT)'),
        ("EXPORT_GATEWAY__API_KEYS", CANARY, 'EXPORT_GATEWAY__API_KEYS: must be JSON: ["a", "b"] for a list'),
        ("EXPORT_S3", '{"buket": "x"}', "s3.buket: unknown setting (in EXPORT_S3); did you mean bucket?"),
        ("EXPORT_GATEWAY__API_KEYS", "5", "gateway.api_keys: "),
        ("EXPORT_CONNECTIONS", CANARY, "EXPORT_CONNECTIONS: must be JSON"),
        ("EXPORT_CONNECTIONS", f'"{CANARY}"', "connections: "),
        ("EXPORT_CONNECTIONS__GIO", CANARY, "connections.gio: "),
        ("EXPORT_CONNECTIONS__GIO__ALLOW_HOSTS", CANARY, "EXPORT_CONNECTIONS__GIO__ALLOW_HOSTS: must be JSON"),
        ("EXPORT_CONNECTIONS__GIO__POLL__FIRST_S", CANARY, "connections.gio.poll.first_s: "),
        (
            "EXPORT_CONNECTIONS__NEW__TOKEN",
            CANARY,
            "connections.new.platform: is required (in EXPORT_CONNECTIONS__NEW__T",
        ),
        ("EXPORT_S3", "", "EXPORT_S3: must be JSON"),
    ],
)
def test_error_names_the_setting_of_a_variable(
    write: Write, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    write(GIO)
    monkeypatch.setenv(name, value)
    assert load_error().startswith(message)


def test_named_file_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORT_CONFIG", "missing.toml")
    assert load_error() == (
        "cannot read the configuration missing.toml (No such file or directory); check EXPORT_CONFIG"
    )


def test_named_file_that_is_a_directory_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EXPORT_CONFIG", str(tmp_path))
    assert load_error().startswith(f"cannot read the configuration {tmp_path} (Is a directory)")


@pytest.mark.parametrize(
    ("broken", "hint"),
    [
        (f"token = {CANARY}", "text needs quotes"),
        (f"token = '{CANARY}", ""),
        (f"[connections\n'{CANARY}'", ""),
        (f"a = '{CANARY}'\na = 1", "each setting and each section is written once"),
        ("[connections.gio]\n[connections.gio]", "Cannot declare [connections.gio] twice (at line 2"),
        ("[s3]\n[s3]", "Cannot declare [s3] twice (at line 2"),
        (f"token = \u201c{CANARY}\u201d", "replace the typographic quotes"),
        (f'a = "C:\\{CANARY}"', "write a text with backslashes in single quotes"),
        ("a = True", "write true or false"),
        ("a = yes", "write true or false"),
        (f"s3:\n  bucket: {CANARY}", "this looks like YAML"),
        (f'{{"s3": "{CANARY}"}}', "this looks like JSON"),
    ],
)
def test_file_with_invalid_toml_is_an_error(write: Write, broken: str, hint: str) -> None:
    write(broken)
    message = load_error()
    assert message.startswith("export-worker.toml is not valid TOML: ")
    assert " (at " in message
    assert hint in message


def test_file_with_thousands_of_brackets_is_an_error(write: Write) -> None:
    write(f"a = {'[' * 5_000}{']' * 5_000}")
    assert load_error() == "export-worker.toml is not valid TOML: its brackets are nested too deeply"


def test_file_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "export-worker.toml").write_bytes(b"a = '\xff'\n" + CANARY.encode())
    expected = "export-worker.toml is not valid TOML: it is not text in UTF-8 (byte 6); save the file as UTF-8"
    assert load_error() == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_file_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "export-worker.toml").write_bytes("namespace = 'marked' # 名\r\n".encode(encoding))
    assert load_config().namespace == "marked"


# Secrets


@pytest.mark.parametrize(
    "toml",
    [
        GIO + "token = 4711",
        GIO + "token = [4711]",
        "[gateway]\napi_keys = '4711'",
        "[gateway]\napi_keys = [4711]",
        "[sinks.a]\ntype = 'webhook'\nurl = 'https://a'\nsecret = 4711",
        "[sinks]\na = '4711'",
        "redis_url = 4711",
        "redis_url = '4711'",
        GIO + "tokn = '4711'\nmax_in_flight = 0",
    ],
)
def test_short_secret_in_the_wrong_place_is_not_shown(write: Write, toml: str) -> None:
    write(toml)
    assert "4711" not in load_error()


def config_with_secrets() -> Config:
    (Path.cwd() / "export-worker.toml").write_text(
        f"""
        redis_url = "redis://user:{CANARY}@127.0.0.1:6379/0"
        [gateway]
        api_keys = ["{CANARY}"]
        [connections.gio]
        platform = "growingio"
        base_url = "https://op.example.cn"
        token = "{CANARY}"
        client_secret = "{CANARY}"
        api_key = "{CANARY}"
        tokn = "{CANARY}"
        [sinks.hook]
        type = "webhook"
        url = "https://{CANARY}"
        secret = "{CANARY}"
        previous_secret = "{CANARY}"
        [sinks.rabbit]
        type = "broker"
        broker = "rabbitmq"
        url = "amqp://u:{CANARY}@h"
        destination = "q"
        [triggers.rabbit]
        type = "broker"
        broker = "rabbitmq"
        url = "amqp://u:{CANARY}@h"
        source = "q"
        """
    )
    return load_config()


def test_configuration_shows_no_secret_in_repr_or_str() -> None:
    config = config_with_secrets()
    for shown in (repr(config), str(config), repr(config.connections), str(config.gateway), repr(config.secrets())):
        assert CANARY not in shown
    assert "growingio" in repr(config)


def test_secrets_returns_every_secret_with_its_setting() -> None:
    assert [setting for setting, _ in config_with_secrets().secrets()] == [
        "connections.gio.token",
        "connections.gio.client_secret",
        "connections.gio.api_key",
        "sinks.hook.url",
        "sinks.hook.secret",
        "sinks.hook.previous_secret",
        "sinks.rabbit.url",
        "triggers.rabbit.url",
        "gateway.api_keys.0",
    ]


def test_part_that_does_not_fit_into_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORT_S3__PART_SIZE_MIB", "200")
    with pytest.raises(ConfigError, match=r"transfer\.memory_mib must be at least s3\.part_size_mib \(200\)"):
        load_config()
    monkeypatch.setenv("EXPORT_TRANSFER__MEMORY_MIB", "200")
    assert load_config().s3.part_bytes == 200 * 2**20
