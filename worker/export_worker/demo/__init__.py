"""`export-worker demo`: runs every kind of export on one machine. It needs no installed services and leaves none."""
