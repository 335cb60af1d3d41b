"""Checks of everything that a worker needs: one file for each service. Each gives findings and raises nothing."""
