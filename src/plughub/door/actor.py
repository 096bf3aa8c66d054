"""Who a request is from, for the audit."""

from plughub.db.audit import Actor, ActorKind
from plughub.door.request import Request
from plughub.kit.caller import Caller

_KINDS: dict[str, ActorKind] = {"key": "key", "session": "user", "token": "token"}


def actor_of(request: Request, caller: Caller | None = None) -> Actor:
    """The caller with where they are and what they ask; without a caller the address alone. `caller`: of a page, which admits nobody."""
    caller, address = caller or request.caller, request.address or None
    if caller is None:
        return Actor("anonymous", address=address, request_id=request.id)
    return Actor(_KINDS[caller.credential], caller.key_id or None, caller.user_id, address, request.id)
