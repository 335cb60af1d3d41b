"""The AsyncAPI 3.0 document: the events that sinks send, and the messages that triggers receive."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from export_worker.contract.event import Event
from export_worker.contract.request import ExportRequest
from export_worker.schemas.messages import MESSAGES, SCHEMAS

Json = dict[str, Any]

SERVERS = {
    "redis": ("redis", "127.0.0.1:6379", "The Redis of the setting `redis_url`."),
    "receiver": ("https", "receiver.example.com", "The receiver of a webhook, as `sinks.NAME.url` names it."),
    "sqs": ("sqs", "sqs.us-east-1.amazonaws.com", "SQS in the region of the setting."),
    "sns": ("sns", "sns.us-east-1.amazonaws.com", "SNS in the region of the setting."),
    "eventbridge": ("https", "events.us-east-1.amazonaws.com", "EventBridge in the region of the setting."),
    "rabbitmq": ("amqp", "rabbitmq.example.com:5672", "RabbitMQ, as the setting `url` names it."),
    "nats": ("nats", "nats.example.com:4222", "NATS with JetStream, as the setting `url` names it."),
    "kafka": ("kafka", "kafka.example.com:9092", "Kafka, as the setting `url` names it."),
}
"""Each server with its protocol, an address as the default, and its description."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A destination of events, or a source of messages.

    Args:
        server: The server that has it.
        address: The setting that names it within the server.
        default: The default of this setting, or an example.
        messages: The forms of its messages.
        about: What export-worker does with it.
    """

    server: str
    address: str
    default: str
    messages: tuple[str, ...]
    about: str


SINKS = {
    "redisStreamSink": Channel(
        "redis", "sinks.NAME.stream", "exports:events", ("eventInStream",), "Appends events to a Redis stream."
    ),
    "webhookSink": Channel(
        "receiver", "sinks.NAME.url", "/hooks/exports", ("eventOfWebhook",), "Posts signed events to a receiver."
    ),
    "sqsSink": Channel("sqs", "sinks.NAME.queue_url", "exports", ("event",), "Sends events to an SQS queue."),
    "snsSink": Channel("sns", "sinks.NAME.topic_arn", "exports", ("eventOfSns",), "Publishes events to an SNS topic."),
    "eventbridgeSink": Channel(
        "eventbridge", "sinks.NAME.event_bus", "default", ("eventOnBus",), "Puts events on an EventBridge bus."
    ),
    "rabbitmqSink": Channel(
        "rabbitmq", "sinks.NAME.destination", "exports", ("event",), "Publishes events to a queue or an exchange."
    ),
    "natsSink": Channel(
        "nats", "sinks.NAME.destination", "exports.events", ("eventOfNats",), "Publishes events to a subject."
    ),
    "kafkaSink": Channel(
        "kafka", "sinks.NAME.destination", "exports", ("eventOfKafka",), "Publishes events to a topic."
    ),
}
MEANINGS = {
    "send": "Each event is delivered at least once, always with the same id. A test of a sink is an event of the type "
    "`sink.test`, whose `data` has only the name of the sink.",
    "receive": "A message that is delivered twice makes one export. A message that requests none is a dead letter.",
}
SECURITY = {
    "password": {"type": "userPassword", "description": "User and password in the setting of the address."},
    "aws": {"type": "http", "scheme": "AWS4-HMAC-SHA256", "description": "Credentials of boto3's own chain."},
    "signature": {
        "type": "httpApiKey",
        "name": "webhook-signature",
        "in": "header",
        "description": "A signature with the setting `secret`, which the receiver checks.",
    },
}
_MESSAGES = ("request", "cloudEvent")
TRIGGERS = {
    "redisStreamTrigger": Channel(
        "redis",
        "triggers.NAME.stream",
        "segment-events",
        ("requestInStream", "cloudEventInStream"),
        "Reads a Redis stream in a consumer group.",
    ),
    "sqsTrigger": Channel("sqs", "triggers.NAME.queue_url", "requests", _MESSAGES, "Reads an SQS queue."),
    "rabbitmqTrigger": Channel("rabbitmq", "triggers.NAME.source", "requests", _MESSAGES, "Reads a queue."),
    "natsTrigger": Channel("nats", "triggers.NAME.source", "requests", _MESSAGES, "Reads a subject of JetStream."),
    "kafkaTrigger": Channel("kafka", "triggers.NAME.source", "requests", _MESSAGES, "Reads a topic."),
}


def asyncapi_document() -> Json:
    """Returns the document."""
    _, found = models_json_schema(
        [(Event, "serialization"), (ExportRequest, "validation")], ref_template="#/components/schemas/{model}"
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "export-worker",
            "version": version("export-worker"),
            "description": "The events that report the end of exports, and the messages that request exports.",
            "contact": {"name": "The operators of these workers"},
            "license": {"name": "MIT", "url": "https://opensource.org/license/mit"},
            "tags": [
                {"name": "sinks", "description": "Destinations of events."},
                {"name": "triggers", "description": "Sources of messages that request exports."},
            ],
        },
        "defaultContentType": "application/json",
        "servers": {name: _server(*parts) for name, parts in SERVERS.items()},
        "channels": {name: _channel(channel) for name, channel in (SINKS | TRIGGERS).items()},
        "operations": {
            **{f"send_{name}": _operation("send", name, channel) for name, channel in SINKS.items()},
            **{f"receive_{name}": _operation("receive", name, channel) for name, channel in TRIGGERS.items()},
        },
        "components": {
            "messages": MESSAGES,
            "schemas": _for_asyncapi(found["$defs"]) | SCHEMAS,
            "securitySchemes": SECURITY,
        },
    }


def _for_asyncapi(schema: Any) -> Any:
    """Returns a schema in the dialect of AsyncAPI: nothing stands beside a `$ref`, and a discriminator is a name."""
    if isinstance(schema, list):
        return [_for_asyncapi(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _for_asyncapi(part) for name, part in schema.items() if name not in {"$ref", "discriminator"}}
    if "$ref" not in schema:
        return found
    return found | {"allOf": [{"$ref": schema["$ref"]}]} if found else {"$ref": schema["$ref"]}


def _server(protocol: str, host: str, about: str) -> Json:
    return {
        "host": "{host}",
        "protocol": protocol,
        "description": about,
        "variables": {"host": {"default": host, "description": "The host, and its port unless it is the usual one."}},
    }


def _channel(channel: Channel) -> Json:
    parameter = {"description": f"The setting `{channel.address}`.", "default": channel.default}
    return {
        "address": "{address}",
        "description": channel.about,
        "servers": [{"$ref": f"#/servers/{channel.server}"}],
        "parameters": {"address": parameter},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in channel.messages},
    }


def _operation(action: str, name: str, channel: Channel) -> Json:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": channel.about,
        "description": f"For each section of the configuration that uses it. {MEANINGS[action]}",
        "security": [{"$ref": f"#/components/securitySchemes/{_security(channel.server)}"}],
        "messages": [{"$ref": f"#/channels/{name}/messages/{message}"} for message in channel.messages],
    }


def _security(server: str) -> str:
    """Returns how export-worker authenticates to a server, or, for a webhook, to its receiver."""
    return {"receiver": "signature", "sqs": "aws", "sns": "aws", "eventbridge": "aws"}.get(server, "password")
