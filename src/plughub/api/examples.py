"""A body for every route that takes one, as a reader would send it: the Postman collection shows them, and a test sends them all.

`{{name}}` stands for a variable of the collection.
"""

from collections.abc import Mapping
from typing import Any

MCP_ACCEPT = "application/json, text/event-stream"
_KEY = {"name": "agent", "description": "Reads servers and calls tools", "expires_at": "2099-01-01T00:00:00Z"}
_LIST_TOOLS = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
_URL = "https://example.com/sse"
_DOCUMENT = {
    "title": "Refunds",
    "content": "# Refunds\n\nRefunds are paid within thirty days of the order.",
    "format": "md",
    "tags": ["policy"],
    "metadata": {"owner": "support"},
}
_RENAMED = {"name": "Files of the team", "config": {"headers": {"X-Team": "blue"}}}

# By method and path.
BODIES: Mapping[str, Any] = {
    "POST /api/servers": {
        "name": "Files",
        "description": "The team's files",
        "type": "STREAMABLE_HTTP",
        "config": {"url": "https://example.com/mcp", "headers": {"Authorization": "Bearer <its own token>"}},
    },
    "POST /api/servers/import": {
        "mcpServers": {"notes": {"type": "http", "url": "https://example.com/mcp", "headers": {"Authorization": "Bearer ${NOTES_TOKEN}"}}},
        "values": {"NOTES_TOKEN": "<its own token>"},
    },
    "POST /api/mcp-servers": {
        "name": "Tickets",
        "transport": "http",
        "url": "https://example.com/mcp",
        "headers": {"Authorization": "Bearer <its own token>"},
        "notes": "The team's tickets",
    },
    # Postman leaves what names no variable of its own as it is.
    "POST /api/batch": {
        "operations": [
            {"id": "create", "method": "POST", "path": "/servers", "body": {"name": "Passing", "type": "SSE", "config": {"url": _URL}}},
            {"id": "remove", "method": "DELETE", "path": "/servers/{{create.body.uuid}}"},
        ],
        "mode": "atomic",
    },
    "PUT /api/servers/{uuid}": _RENAMED,
    "PATCH /api/servers/{uuid}": _RENAMED,
    "POST /api/servers/{uuid}/tools/{tool}/execute": {"parameters": {"location": "San Francisco, CA"}, "timeout_ms": 60_000},
    "POST /api/servers/{uuid}/resources/read": {"uri": "weather://locations"},
    "POST /api/servers/{uuid}/prompts/{name}/get": {"arguments": {"location": "Paris", "activity": "a picnic"}},
    "POST /v1/mcp/invoke": {"mcp_id": "{{mcp_id}}", "tool": "get_weather", "arguments": {"location": "San Francisco, CA"}},
    "POST /v1/mcp/resources": {"mcp_id": "{{mcp_id}}", "uri": "weather://locations"},
    "POST /v1/mcps": {
        "name": "Files",
        "description": "The team's files",
        "endpoint_url": "https://example.com/mcp",
        "auth_type": "bearer",
        "auth_token": "<its own token>",
    },
    "PATCH /v1/mcps/{mcp_id}": {"name": "Files of the team", "status": "inactive"},
    "POST /api/auth/keys": {**_KEY, "scopes": ["read:servers", "execute:tools"], "servers": ["{{server_uuid}}"]},
    "PATCH /api/auth/keys/{key_id}": {"description": "Calls tools of every server", "servers": "*"},
    "POST /api/auth/keys/{key_id}/rotate": {"overlap_seconds": 86_400},
    "POST /api/auth/keys/leaked": {"token": "<the key>", "url": "https://example.com/where/it/was/found"},
    "POST /v1/api-keys": {**_KEY, "permissions": {"mcps": ["{{mcp_id}}"]}},
    "PATCH /v1/api-keys/{key_id}": {"description": "Calls tools of every server", "permissions": {"mcps": "*"}},
    "POST /api/auth/register": {"name": "Ada Lovelace", "email": "ada@example.com", "password": "<at least 8 characters>"},
    "POST /api/auth/login": {"email": "ada@example.com", "password": "<its password>"},
    "POST /api/auth/setup": {
        "code": "<from the first start>",
        "name": "Ada Lovelace",
        "email": "ada@example.com",
        "password": "<at least 8 characters>",
    },
    "POST /api/auth/password": {"current_password": "<the old one>", "new_password": "<the new one>"},
    "POST /api/auth/totp": {"password": "<the password>"},
    "POST /api/auth/totp/confirm": {"code": "123456"},
    "POST /api/auth/totp/disable": {"password": "<the password>", "code": "123456"},
    "POST /api/auth/totp/backup-codes": {"password": "<the password>", "code": "123456"},
    "POST /api/auth/password/forgot": {"email": "ada@example.com"},
    "POST /api/auth/password/reset": {"token": "<from the mail>", "password": "<the new one>"},
    "POST /api/auth/verify": {"token": "<from the mail>"},
    "POST /api/organizations": {"name": "Analytical Engines"},
    "PATCH /api/organizations/{organization_id}": {"description": "Computes"},
    "PATCH /api/organizations/{organization_id}/members/{user_id}": {"role": "viewer"},
    "DELETE /api/organizations/{organization_id}/members/{user_id}": {"keys": "revoke"},
    "POST /api/organizations/{organization_id}/invitations": {"email": "ada@example.com", "role": "member"},
    "POST /api/invitations/accept": {"token": "<from the mail>"},
    "PATCH /v1/organization": {"description": "Computes"},
    "POST /v1/organization/members/invite": {"email": "ada@example.com", "role": "member"},
    "PATCH /v1/organization/members/{user_id}": {"role": "viewer"},
    "DELETE /v1/organization/members/{user_id}": {"keys": "revoke"},
    "POST /api/oauth/apps": {"name": "Portal", "redirect_uris": ["https://portal.example.com/callback"], "scopes": ["read:servers"]},
    "PATCH /api/oauth/apps/{app_id}": {"description": "The customers' portal"},
    "POST /api/notifications": {"title": "Deployed", "message": "The new servers are in place", "severity": "SUCCESS"},
    "PATCH /api/notifications/preferences": {"email": False},
    "POST /api/projects": {"name": "Support", "description": "What answers customers"},
    "PATCH /api/projects/{project_uuid}": {"description": "What answers customers and partners"},
    "POST /api/profiles": {"name": "Research", "description": "Reads and looks up, changes nothing"},
    "PATCH /api/profiles/{profile_uuid}": {"description": "Reads and looks up"},
    "PUT /api/profiles/{profile_uuid}/servers/{server_uuid}": {
        "tools": {"get_weather": {"name": "weather", "description": "The weather now"}}
    },
    "POST /api/collections": {
        "name": "Weather",
        "description": "What a forecaster needs",
        "serverUuids": ["{{server_uuid}}"],
        "isPublic": True,
    },
    "PATCH /api/collections/{collection_uuid}": {"description": "What a forecaster needs, and no more"},
    "POST /api/collections/import": {
        "collection": {
            "plughub": "collection",
            "version": 1,
            "name": "Notes",
            "servers": [
                {
                    "name": "Notes",
                    "type": "STREAMABLE_HTTP",
                    "config": {"url": "https://example.com/mcp", "headers": {"Authorization": "Bearer <its own token>"}},
                }
            ],
        },
    },
    "POST /api/registry/install": {"server_name": "weather-server"},
    "POST /api/registry/submit": {
        "server": {
            "name": "com.example/tickets",
            "description": "The team's tickets",
            "version": "1.0.0",
            "remotes": [{"type": "streamable-http", "url": "https://example.com/mcp"}],
        },
    },
    "POST /api/admin/organizations": {"name": "Customers", "tier": "enterprise", "limits": {"hourly": 50_000, "burst": 1_000}},
    "PATCH /api/admin/organizations/{organization_id}": {"tier": "business", "stdio_allowed": False},
    "POST /api/alerts": {"name": "Many errors", "metric": "error_rate", "threshold": 0.2, "window": 600},
    "PATCH /api/alerts/{alert_id}": {"threshold": 0.5},
    "POST /api/webhooks": {"url": "https://example.com/webhook", "events": ["server.connected", "server.error", "tool.executed"]},
    "PATCH /api/webhooks/{webhook_id}": {"events": ["server.*"]},
    "POST /api/webhooks/{webhook_id}/rotate-secret": {"overlap_seconds": 86_400},
    "POST /api/webhooks/{webhook_id}/test": {"event": "test.ping"},
    "POST /api/webhooks/{webhook_id}/recover": {"since": "2026-01-01T00:00:00Z"},
    "POST /api/integrations/{service_name}": {
        "webhook_url": "https://hooks.slack.com/services/T000/B000/XXXX",
        "channel": "#ops",
        "events": ["server.error"],
    },
    "POST /api/documents": _DOCUMENT,
    "POST /api/documents/upload": _DOCUMENT,
    "PUT /api/documents/{document_id}": {"content": "# Refunds\n\nRefunds are paid within sixty days.", "changeSummary": "Sixty days"},
    "PATCH /api/documents/{document_id}": {"tags": ["policy", "orders"], "operation": "append", "content": "Write to the shop."},
    "POST /api/documents/{document_id}/rollback": {"version": 1},
    "POST /api/documents/bulk": {"operation": "tag", "ids": ["{{document_id}}"], "tags": ["reviewed"]},
    "POST /api/documents/search": {"query": "refunds", "filters": {"tags": ["policy"]}, "limit": 10},
    "POST /api/rag/query": {"query": "When are refunds paid?"},
    "POST /mcp": _LIST_TOOLS,
    "POST /mcp/{profile_slug}": _LIST_TOOLS,
    "POST /servers/{uuid}/mcp": _LIST_TOOLS,
}
