"""Names of what several servers offer at one door: such as every client and model takes, and the same whatever other servers there are.

Tools and prompts are `{slug}__{name}`. Over 64 characters they are cut, characters other than letters, digits, `_` and `-` become `_`
(makers of models take no others, where MCP allows dots and slashes), and either way they end in a digest of the whole. Resources keep
their URI behind a scheme of their own, `plughub.{slug}+{uri}`: still a URI, and of a template still a template.
"""

import re
from hashlib import blake2b

MAX_NAME = 64
_DIGEST = 6
_MARK = "__"
_PLAIN = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NAME}}}")
_ODD = re.compile(r"[^A-Za-z0-9_-]")
_DIGESTED = re.compile(rf"_[0-9a-f]{{{_DIGEST}}}\Z")
_SCHEME = re.compile(r"plughub\.([a-z0-9-]{1,24})\+", re.IGNORECASE)


def aggregate_name(slug: str, name: str) -> str:
    """The name of a tool or prompt at a door of several servers."""
    whole = f"{slug}{_MARK}{name}"
    if _PLAIN.fullmatch(whole) is not None:
        return whole
    # A lone surrogate is a character as any other here.
    digest = blake2b(whole.encode(errors="surrogatepass"), digest_size=_DIGEST // 2).hexdigest()
    return f"{_ODD.sub('_', whole)[: MAX_NAME - _DIGEST - 1]}_{digest}"


def split_name(whole: str) -> tuple[str, str] | None:
    """(slug, what follows it: the server's own name if the whole `stands_for_itself`), or None when it is no such name."""
    slug, mark, tail = whole.partition(_MARK)
    return (slug, tail) if mark else None


def stands_for_itself(whole: str) -> bool:
    """Whether what follows the slug can only be the server's own name. Else the server's list tells whether there is such a one."""
    return _PLAIN.fullmatch(whole) is not None and _DIGESTED.search(whole) is None


def aggregate_uri(slug: str, uri: str) -> str:
    """The URI of a resource, or of a template, at a door of several servers."""
    return f"plughub.{slug}+{uri}"


def split_uri(uri: str) -> tuple[str, str] | None:
    """(slug, the server's own URI), or None when it is the URI of some server as it stands."""
    found = _SCHEME.match(uri)
    return (found[1].lower(), uri[found.end() :]) if found is not None else None
