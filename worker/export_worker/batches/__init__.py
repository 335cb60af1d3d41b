"""The end of batches: one manifest over all exports in the bucket, and then one event."""
