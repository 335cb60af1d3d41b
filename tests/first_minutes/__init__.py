"""The first minutes of a new user: a machine without packages and caches, and a terminal of a usual size."""
