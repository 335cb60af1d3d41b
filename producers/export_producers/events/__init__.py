"""Completion events as operators see them: what sinks have not taken, deliveries, and tests of sinks."""
