"""Builds the producer's queue from the configuration. Imports no package that only workers need."""

from export_producers.client import ExportQueue
from export_producers.queues.queues import ExportQueues
from export_producers.requesters import LIBRARY, of_command_line
from export_worker.config import Config, load_config


def build_queue(config: Config, requested_by: str = LIBRARY) -> ExportQueue:
    """Returns the queue of the configured namespace; it connects with the first call.

    Without configured connections the queue accepts the connections that workers have announced in Redis.
    """
    return ExportQueue(
        config.redis_url,
        namespace=config.namespace,
        connections=config.platforms() or None,
        requested_by=requested_by,
    )


def build_queues(config: Config) -> ExportQueues:
    """Returns the queues of a gateway: those of `gateway.queues`, or the only one of this configuration.

    Several queues accept the connections that their workers have announced: the configuration does not say which queue
    has which connection.
    """
    queues = config.gateway.queues
    if not queues:
        return ExportQueues.of(build_queue(config))
    return ExportQueues(
        {name: ExportQueue(each.redis_url, namespace=each.namespace) for name, each in queues.items()},
        {name: each.connections for name, each in queues.items()},
    )


def redis_urls(config: Config) -> list[str]:
    """Returns the address of each Redis of a gateway."""
    return [queue.redis_url for queue in config.gateway.queues.values()] or [config.redis_url]


def configured_queue() -> ExportQueue:
    """Loads the configuration, and returns the queue of its namespace for the user of this process."""
    return build_queue(load_config(), of_command_line())
