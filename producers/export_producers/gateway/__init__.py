"""The HTTP API: the export queue for services in any language."""
