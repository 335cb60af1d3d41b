"""Sinks that publish completion events to message brokers."""
