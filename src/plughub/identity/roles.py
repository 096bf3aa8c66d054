"""What people may do in an organisation: the one table of permissions by role. Source: CONTRACT section 3, the PlexMCP roles."""

from collections.abc import Mapping
from typing import Literal

from plughub.kit.caller import SCOPES

Role = Literal["owner", "admin", "member", "viewer"]
# From the most to the least.
ROLES: tuple[Role, ...] = ("owner", "admin", "member", "viewer")

_VIEWER = frozenset(
    {
        "read:servers",
        "read:documents",
        "read:collections",
        "read:webhooks",
        "read:events",
        "read:usage",
        "read:profile",
        "write:profile",
        "read:notifications",
        "write:notifications",
    }
)
# Whoever is not an administrator sees and changes no keys but their own.
_MEMBER = _VIEWER | {"execute:tools", "write:documents", "write:collections", "read:keys", "write:keys"}
# An owner may do what an administrator may, and alone decides who is an owner.
PERMISSIONS: Mapping[Role, frozenset[str]] = {"owner": SCOPES, "admin": SCOPES, "member": _MEMBER, "viewer": _VIEWER}
