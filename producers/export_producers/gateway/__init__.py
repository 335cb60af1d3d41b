"""The HTTP API: the queue, for services in any language."""
