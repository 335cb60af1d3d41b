"""Plays Sensors Data."""
