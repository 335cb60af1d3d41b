"""Keeps pytest from collecting the tests of the packages in this folder. They run where the package is installed."""

collect_ignore = ["tiny_platform"]
