"""Names of what several servers offer at one door: of a length that every client takes, and the same whatever other servers there are.

Tools and prompts are `{slug}__{name}`; over 64 characters they are cut and end in a digest of the whole. Characters stay as the
server chose them. Resources keep their URI behind a scheme of their own, `plughub.{slug}+{uri}`: still a URI, and of a template still a
template.
"""

import re
from hashlib import blake2b

MAX_NAME = 64
_DIGEST = 6
_MARK = "__"
_SCHEME = re.compile(r"plughub\.([a-z0-9-]{1,24})\+", re.IGNORECASE)


def aggregate_name(slug: str, name: str) -> str:
    """The name of a tool or prompt at a door of several servers."""
    whole = f"{slug}{_MARK}{name}"
    if len(whole) <= MAX_NAME:
        return whole
    digest = blake2b(whole.encode(), digest_size=_DIGEST // 2).hexdigest()
    return f"{whole[: MAX_NAME - _DIGEST - 1]}_{digest}"


def split_name(whole: str) -> tuple[str, str] | None:
    """(slug, the server's own name, cut if the whole was cut), or None when it is no such name."""
    slug, mark, tail = whole.partition(_MARK)
    return (slug, tail) if mark else None


def may_be_cut(whole: str) -> bool:
    """Whether the name has the length of those that were cut, so that only the server's list tells what it stands for."""
    return len(whole) >= MAX_NAME


def aggregate_uri(slug: str, uri: str) -> str:
    """The URI of a resource, or of a template, at a door of several servers."""
    return f"plughub.{slug}+{uri}"


def split_uri(uri: str) -> tuple[str, str] | None:
    """(slug, the server's own URI), or None when it is the URI of some server as it stands."""
    found = _SCHEME.match(uri)
    return (found[1].lower(), uri[found.end() :]) if found is not None else None
