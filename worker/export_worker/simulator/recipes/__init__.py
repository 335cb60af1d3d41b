"""Simulates APIs that recipes of export-worker describe."""
