"""The names that people choose for everybody to see. Pure functions.

Letters of ASCII, digits and hyphens alone: no letter of another script can be taken for one of them. Names are kept in lower case, and
those that are easily taken for each other count as one (`likeness`).
"""

import re

from plughub.kit.errors import Invalid

MIN_LENGTH, MAX_LENGTH = 3, 30
_FORM = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_ALIKE = str.maketrans({"0": "o", "1": "l", "-": None})
# What a page, a mail or a path of the hub may be called, and who could be taken for its operator.
RESERVED = frozenset(
    [
        "abuse",
        "account",
        "accounts",
        "admin",
        "administrator",
        "api",
        "app",
        "apps",
        "audit",
        "auth",
        "authorize",
        "billing",
        "blog",
        "bot",
        "callback",
        "collection",
        "collections",
        "config",
        "contact",
        "dashboard",
        "deleted",
        "demo",
        "dev",
        "docs",
        "document",
        "documents",
        "export",
        "help",
        "home",
        "hub",
        "import",
        "info",
        "invitation",
        "invite",
        "keys",
        "legal",
        "live",
        "login",
        "logout",
        "mail",
        "mcp",
        "me",
        "member",
        "members",
        "metrics",
        "news",
        "nobody",
        "null",
        "oauth",
        "official",
        "operator",
        "organization",
        "organizations",
        "owner",
        "plugged",
        "plugged-in",
        "plughub",
        "plexmcp",
        "postmaster",
        "privacy",
        "profile",
        "profiles",
        "projects",
        "public",
        "ready",
        "register",
        "registry",
        "root",
        "search",
        "security",
        "self",
        "server",
        "servers",
        "session",
        "sessions",
        "settings",
        "setup",
        "signin",
        "signup",
        "sse",
        "staff",
        "status",
        "support",
        "system",
        "team",
        "terms",
        "test",
        "token",
        "tools",
        "undefined",
        "user",
        "username",
        "users",
        "v1",
        "v2",
        "verify",
        "webhook",
        "webhooks",
        "webmaster",
        "well-known",
        "www",
        "you",
    ]
)


def normal_username(text: str) -> str:
    """The form in which names are kept and compared. Raises Invalid, saying what is wrong."""
    name = text.strip().lower()
    if not MIN_LENGTH <= len(name) <= MAX_LENGTH or _FORM.fullmatch(name) is None:
        what = f"have {MIN_LENGTH} to {MAX_LENGTH} letters of a to z, digits and single hyphens between them"
        raise Invalid("username", f"The 'username' field must {what}", text)
    if likeness(name) in _RESERVED_ALIKE:
        raise Invalid("username", "The 'username' field is a reserved name", text)
    return name


def likeness(name: str) -> str:
    """The same for names that look alike: `paypa1` and `pay-pal`."""
    return name.translate(_ALIKE)


_RESERVED_ALIKE = frozenset(map(likeness, RESERVED))
