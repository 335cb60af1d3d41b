"""Triggers that consume messages from brokers."""
