"""What producers, workers and other services agree on: requests, statuses, events, names in Redis.

It needs only pydantic, so a service can import it next to its own code.
"""
