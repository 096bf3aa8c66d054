"""The event log: what can happen, reading it, following it, and caches that are kept right by it."""
