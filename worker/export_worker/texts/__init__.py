"""Texts of files that people write, with the standard library only."""
