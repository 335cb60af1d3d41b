"""References to secrets: `env:NAME`, `file:/path` and `aws-sm:NAME`."""
