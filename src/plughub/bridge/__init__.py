"""Translation of messages between revisions of MCP: pure functions over raw JSON."""
