"""Documents for tests, as publishers write them."""

from typing import Any

Json = dict[str, Any]


def document(name: str = "com.example/tickets", **given: Any) -> Json:
    """A server at an address, unless something else is given."""
    remotes = [] if "packages" in given else [{"type": "streamable-http", "url": "https://example.com/mcp"}]
    return {"name": name, "description": "The team's tickets", "version": "1.0.0", "remotes": remotes, **given}


def package(identifier: str = "tickets-mcp", kind: str = "pypi", **given: Any) -> Json:
    """A package that talks over STDIO."""
    return {"registryType": kind, "identifier": identifier, "version": "1.0.0", "transport": {"type": "stdio"}, **given}
