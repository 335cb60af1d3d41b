"""Which network addresses outgoing requests may reach (SSRF protection)."""
