"""Simulates ThinkingData."""
