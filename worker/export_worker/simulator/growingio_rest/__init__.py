"""Simulates GrowingIO's REST API."""
