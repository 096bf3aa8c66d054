"""Our own MCP clients: STDIO children and Streamable HTTP servers, of both protocol eras."""
