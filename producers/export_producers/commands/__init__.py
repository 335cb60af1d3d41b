"""The commands that a producer needs: enqueue, status, list, watch, explain, cancel, retry."""
