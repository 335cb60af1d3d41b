"""The Redis client and everything stored in the namespace: records, claims, rate limits, the outbox, Lua scripts."""
