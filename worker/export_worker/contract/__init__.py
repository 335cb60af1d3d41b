"""What producers, workers and other services agree on: requests, statuses, events, error codes, Redis keys.

Floor 0 of the house: needs pydantic alone, so that a service can import it next to its own code.
"""
