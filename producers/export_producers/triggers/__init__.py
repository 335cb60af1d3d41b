"""Message triggers: each reads messages from one source, enqueues the exports they request, and acknowledges them."""
