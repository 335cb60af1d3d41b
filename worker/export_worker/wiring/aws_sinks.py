"""Builds the sinks that call AWS. Imports boto3, so it is imported only if one of them is configured."""

from typing import assert_never

from export_worker.config.sinks import EventBridgeSink, SnsSink, SqsSink
from export_worker.sinks.aws import AwsEndpoint
from export_worker.sinks.base import Sink
from export_worker.sinks.eventbridge import EventBridge
from export_worker.sinks.sns import Sns
from export_worker.sinks.sqs import Sqs
from export_worker.wiring.aws import translate_aws_errors

AwsSink = SqsSink | SnsSink | EventBridgeSink


def build_aws_sink(section: str, settings: AwsSink) -> Sink:
    """Returns one sink.

    Args:
        section: The section of the configuration, for errors, e.g. `sinks.queue`.

    Raises:
        ConfigError: boto3 refuses the settings.
    """
    with translate_aws_errors(section):
        return _sink(settings)


def _sink(settings: AwsSink) -> Sink:
    endpoint = AwsEndpoint(settings.region, settings.endpoint_url)
    match settings:
        case SqsSink():
            return Sqs(settings.queue_url, endpoint, settings.at_once)
        case SnsSink():
            return Sns(settings.topic_arn, endpoint, settings.at_once)
        case EventBridgeSink():
            return EventBridge(settings.event_bus, endpoint, settings.at_once)
        case _:
            assert_never(settings)
