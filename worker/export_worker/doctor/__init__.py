"""Checks of every service that a worker needs, one module each. A check returns findings and does not raise."""
