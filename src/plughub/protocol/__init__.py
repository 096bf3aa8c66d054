"""MCP without I/O: envelopes, revisions, headers, framing."""
