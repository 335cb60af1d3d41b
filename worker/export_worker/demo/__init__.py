"""`export-worker demo`: runs kinds of export on one machine. It needs no installed services and leaves none."""
