"""The MCP door: one endpoint for all servers a caller sees, and one for each server."""
