"""Runs the conformance suite of drivers on a recipe, against a server that plays the API that the recipe describes."""
