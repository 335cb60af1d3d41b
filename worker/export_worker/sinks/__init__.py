"""Destinations of completion events, and the dispatcher that delivers them."""
