"""The AsyncAPI document: complete, clean by the rules of linters, and true of what sinks send and triggers accept."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from aiohttp import web
from arq.connections import ArqRedis
from jsonschema_rs import Draft7Validator

from export_producers.triggers.message import Message
from export_producers.triggers.parsing import parse_message
from export_worker.config.sinks import AnySink, BrokerName
from export_worker.config.triggers import AnyTrigger
from export_worker.contract.event import Event
from export_worker.redis.client import commands
from export_worker.schemas.asyncapi import SINKS, TRIGGERS, asyncapi_document
from export_worker.sinks.redis_stream import RedisStream
from export_worker.sinks.webhook import Webhook
from support.document_linters import redocly_findings, spectral_findings

DOCUMENT = asyncapi_document()
UNFOUNDED = {
    "asyncapi-info-contact-properties": "the document has no address of the operators",
    "asyncapi-latest-version": "few tools read 3.1.0",
}
"""Rules of Spectral that do not apply, with the reason."""
STATUS = {
    "export_id": "0d4c8d2e",
    "phase": "succeeded",
    "connection": "gio",
    "kind": "growingio.segment_users",
    "created_at": "2026-11-22T03:00:00.000Z",
    "updated_at": "2026-11-22T03:00:10.000Z",
}
EVENT = Event.model_validate(
    {
        "id": "0d4c8d2e.1",
        "type": "export.succeeded",
        "source": "/export-worker/exports",
        "subject": "0d4c8d2e",
        "time": "2026-11-22T03:00:10.000Z",
        "data": STATUS,
    }
)
TEXT = EVENT.model_dump_json()
REQUEST = {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "t"}}


def check(part: dict[str, Any]) -> Draft7Validator:
    """Returns a validator of a part of the document."""
    return Draft7Validator({"allOf": [part], "components": DOCUMENT["components"]}, validate_formats=True)


def message(name: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["components"]["messages"][name]
    return found


def test_spectral_finds_nothing(tmp_path: Path) -> None:
    found = spectral_findings(DOCUMENT, "spectral:asyncapi", tmp_path)
    assert [finding for finding in found if finding.partition(" ")[0] not in UNFOUNDED] == []


def test_redocly_finds_nothing(tmp_path: Path) -> None:
    assert redocly_findings(DOCUMENT, tmp_path) == []


def channels_of(union: Any, end: str) -> dict[str, set[str]]:
    """Returns the settings of each channel that the configuration can name; a broker is a channel of its own."""
    models, _ = get_args(union)
    found = {}
    for model in get_args(models):
        (kind,) = get_args(model.model_fields["type"].annotation)
        for name in get_args(BrokerName) if kind == "broker" else [kind]:
            words = name.split("-")
            found[words[0] + "".join(map(str.title, words[1:])) + end] = set(model.model_fields)
    return found


@pytest.mark.parametrize(("union", "channels", "end"), [(AnySink, SINKS, "Sink"), (AnyTrigger, TRIGGERS, "Trigger")])
def test_every_sink_and_trigger_is_a_channel_that_its_setting_names(union: Any, channels: Any, end: str) -> None:
    settings = channels_of(union, end)
    assert set(channels) == set(settings)
    for name, channel in channels.items():
        assert channel.address.rpartition(".")[2] in settings[name], name


def test_every_message_and_schema_is_used_and_every_reference_leads_to_one() -> None:
    text = json.dumps(DOCUMENT)
    for group in ("messages", "schemas", "securitySchemes"):
        for name in DOCUMENT["components"][group]:
            assert f'"#/components/{group}/{name}"' in text, name
    for name in (*SINKS, *TRIGGERS):
        for form in DOCUMENT["channels"][name]["messages"]:
            check(message(form)["payload"]).is_valid({})  # raises for a reference that leads nowhere


async def test_entry_of_a_redis_stream_is_as_documented(arq_redis: ArqRedis, namespace: str) -> None:
    stream = f"{namespace}:events"
    await RedisStream(commands(arq_redis), stream, 10).deliver(EVENT.id, TEXT)
    ((_, fields),) = await arq_redis.xrange(stream)
    entry = {name.decode(): value.decode() for name, value in fields.items()}
    check(message("eventInStream")["payload"]).validate(entry)
    check({"$ref": "#/components/schemas/Event"}).validate(json.loads(entry["event"]))


async def test_webhook_is_as_documented() -> None:
    posted: list[tuple[dict[str, str], Any]] = []

    async def take(request: web.Request) -> web.Response:
        posted.append(({name.lower(): value for name, value in request.headers.items()}, await request.json()))
        return web.Response(status=204)

    app = web.Application()
    app.add_routes([web.post("/hook", take)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sink = Webhook(f"http://127.0.0.1:{runner.addresses[0][1]}/hook", [b"key"], timeout_s=20, allow_private=True)
    try:
        await sink.deliver(EVENT.id, TEXT)
    finally:
        await sink.close()
        await runner.cleanup()
    ((headers, body),) = posted
    documented = message("eventOfWebhook")
    assert headers["content-type"].startswith(documented["contentType"])
    check(documented["headers"]).validate(headers)
    check(documented["payload"]).validate(body)


def test_documented_request_is_accepted_and_a_wrong_one_is_neither_accepted_nor_documented() -> None:
    payload = check(message("request")["payload"])
    payload.validate(REQUEST)
    accepted = parse_message("orders", Message("1", json.dumps(REQUEST).encode(), {}), None)
    assert accepted.request.kind == "growingio.tag_users"
    assert not payload.is_valid(REQUEST | {"export": {"tag_key": "t"}})
