"""Plays GrowingIO's GraphQL API."""
