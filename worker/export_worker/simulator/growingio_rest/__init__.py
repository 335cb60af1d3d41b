"""Plays GrowingIO's REST API."""
