"""Simulates GrowingIO's GraphQL API."""
