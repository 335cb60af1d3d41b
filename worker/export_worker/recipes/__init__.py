"""Recipes: descriptions of APIs that submit, poll and download, each in one TOML file. Pure."""
