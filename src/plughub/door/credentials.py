"""Requests at passwords, codes and links: from where they come, and what their limit headers say."""

from plughub.cluster.limits import Header
from plughub.door.actor import actor_of
from plughub.door.request import Request
from plughub.gateway.hub import Hub
from plughub.identity.attempts import WINDOW_S, AttemptsLeft
from plughub.identity.sessions import Visit


def visit_of(request: Request) -> Visit:
    """From where a request comes: behind a trusted proxy the address that it tells."""
    agent = request.headers.get(b"user-agent", b"").decode("latin-1").replace("\0", "")
    return Visit(request.address, agent, actor_of(request))


async def count_attempt(request: Request, hub: Hub, account: str | None = None) -> None:
    """Count it; the limit headers of its answer speak of attempts from now on. Raises RateLimited."""
    left = await hub.accounts.take(visit_of(request), account)
    request.limit_headers = limit_headers(left, hub.clock.time())


def limit_headers(left: AttemptsLeft, now: float) -> list[Header]:
    """What an answer at credentials says of the limit of its address."""
    return [
        (b"x-ratelimit-limit", b"%d" % left.limit),
        (b"x-ratelimit-remaining", b"%d" % left.left),
        (b"x-ratelimit-reset", b"%d" % left.reset),
        (b"ratelimit-policy", b'"credentials";q=%d;w=%d' % (left.limit, WINDOW_S)),
        (b"ratelimit", b'"credentials";r=%d;t=%d' % (left.left, max(0, left.full - int(now)))),
    ]
