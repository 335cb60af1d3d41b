"""Simulates Sensors Data."""
