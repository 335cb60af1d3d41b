"""The commands of the producer side: enqueue, status, list, watch, explain, cancel and retry."""
