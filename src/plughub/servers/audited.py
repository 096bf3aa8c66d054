"""A server as the audit compares it."""

from typing import Any

from plughub.db.audit import Hidden
from plughub.servers.config import masked_url
from plughub.servers.schemas import Server

_SECRET_MAPS = ("env", "headers")


def audited(server: Server) -> dict[str, Any]:
    """Its fields, those of its configuration by themselves; what the API shows as `***` is hidden."""
    fields: dict[str, Any] = {
        "name": server.name,
        "slug": server.slug,
        "description": server.description,
        "type": server.transport,
        "enabled": server.enabled,
        "profile_uuid": server.profile_id,
        "capture": server.capture,
    }
    for name, value in server.config.items():
        if name in _SECRET_MAPS:
            fields |= {f"config.{name}.{key}": Hidden(secret) for key, secret in value.items()}
        elif name == "secret_args":
            fields |= {f"config.{name}": Hidden(value)} if value else {}
        else:
            fields[f"config.{name}"] = Hidden(value, masked_url(value)) if name == "url" else value
    return fields
