"""The driver of GrowingIO's REST API."""
