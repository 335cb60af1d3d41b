"""Builds the producer's queue from the configuration. Imports no package that only workers need."""

from export_producers.client import ExportQueue
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


def configured_queue() -> ExportQueue:
    """Loads the configuration, and returns the queue of its namespace for the user of this process."""
    return build_queue(load_config(), of_command_line())
