"""The HTTP toolkit of drivers: requests, credentials, downloads, GraphQL."""
