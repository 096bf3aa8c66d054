"""`?token=` where a browser's EventSource can send no header: taken out of the address before anything else looks at it.

From then on the request is as if its credential had come in a header, so that one way in judges it, and whatever tells of the request
later (logs, traces, errors) finds an address without it. A header that was sent as well wins.
"""

from urllib.parse import unquote_plus

from plughub.door.request import Request
from plughub.kit.errors import Invalid

_HEADERS = (b"authorization", b"x-api-key")
_SECRET = "sk_"
_MAX_TOKEN = 200


def take_token(request: Request) -> None:
    """Move it. Raises Invalid for more than one."""
    query: bytes = request.scope["query_string"]
    if b"token" not in query:
        return
    kept, found = [], []
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if unquote_plus(name.decode("latin-1")) == "token":
            found.append(unquote_plus(value.decode("latin-1")))
        else:
            kept.append(part)
    if not found:
        return
    token = found[0].strip()
    if token.startswith(_SECRET):
        # It stays where it is, and no login stands in for it: admission refuses a secret key in an address, and says so.
        request.headers.pop(b"cookie", None)
        return
    request.scope["query_string"] = b"&".join(kept)
    if len(found) > 1:
        raise Invalid("token", "The 'token' field appears more than once")
    if not any(name in request.headers for name in _HEADERS):
        request.headers[b"authorization"] = b"Bearer " + token[:_MAX_TOKEN].encode("latin-1", "replace")
