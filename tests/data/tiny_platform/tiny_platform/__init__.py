"""A platform for export-worker in a separate package: a kind of export, a driver, and a played platform for tests."""
