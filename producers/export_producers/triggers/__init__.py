"""Messages that ask for exports: each trigger takes them from one place, and acknowledges what has been enqueued."""
