"""The driver of GrowingIO's GraphQL API."""
