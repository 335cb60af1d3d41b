"""Secrets of the configuration that can be exchanged while the process runs."""
