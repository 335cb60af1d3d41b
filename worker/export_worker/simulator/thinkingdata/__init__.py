"""Plays ThinkingData."""
