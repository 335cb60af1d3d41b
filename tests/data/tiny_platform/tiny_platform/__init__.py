"""A platform for export-worker in a package of its own: a kind of export, a driver, and a played platform for tests."""
