"""Readers of Redis: each reads one document in a fixed number of round trips."""
