curl -X POST https://api.plexmcp.com/v1/mcp/invoke \
-H "Authorization: Bearer pk_live_xxxxxxxx" \
-H "Content-Type: application/json" \
-d '{"mcp_id":"mcp_123","tool":"get_weather","arguments":{"location":"San Francisco, CA"},"timeout":60000,"context":{}}'
