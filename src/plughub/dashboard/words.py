"""What each scope lets somebody do, in words for whoever is asked to allow it."""

from collections.abc import Iterable, Mapping

SCOPE_WORDS: Mapping[str, str] = {
    "read:servers": "See your servers, their tools and their logs",
    "write:servers": "Add, change and restart servers",
    "delete:servers": "Delete servers, projects and profiles",
    "read:documents": "Read your documents",
    "write:documents": "Add, change and delete documents",
    "read:profile": "See your profile",
    "write:profile": "Change your profile",
    "read:collections": "See your collections",
    "write:collections": "Change your collections",
    "admin": "Do everything that an administrator may: people, keys, settings, all of it",
    "execute:tools": "Call the tools of your servers, and read their resources and prompts",
    "read:webhooks": "See webhooks and what they delivered",
    "write:webhooks": "Add, change and delete webhooks",
    "read:events": "Follow what happens",
    "read:usage": "See how much is used",
    "read:keys": "See API keys, without their secrets",
    "write:keys": "Make, change and revoke API keys",
    "read:notifications": "Read your notifications",
    "write:notifications": "Write and delete notifications",
}


def in_words(scopes: Iterable[str]) -> list[tuple[str, str]]:
    """Each scope with its words; the widest stands first."""
    return [(scope, SCOPE_WORDS[scope]) for scope in sorted(scopes, key=lambda scope: (scope != "admin", scope))]
