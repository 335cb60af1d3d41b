"""The conformance suite: the tests that every driver must pass, also those of other packages. See worker/PLATFORMS.md.

Importing this package imports pytest, which export-worker does not install.
"""

from export_worker.platforms.conformance.harness import CLIENT_SECRET, TOKEN, serve_simulator
from export_worker.platforms.conformance.suite import DriverSuite

__all__ = ["CLIENT_SECRET", "TOKEN", "DriverSuite", "serve_simulator"]
