"""`export-worker demo`: everything on one machine, nothing to install, nothing left behind."""
