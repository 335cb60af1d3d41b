"""Schedules: when each of them fires. Pure."""
