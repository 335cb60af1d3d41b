"""Schedules: what workers fire, and what operators see and do."""
