"""The active webhooks as this process knows them."""

from collections.abc import Callable, Iterator, Sequence

import structlog
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.events.tail import Tail, Watcher
from plughub.kit.crypto import SealBroken
from plughub.kit.dial import Tls
from plughub.kit.errors import UpstreamUnreachable
from plughub.kit.ids import public_id
from plughub.webhooks import outbox, store
from plughub.webhooks.endpoint import Endpoint
from plughub.webhooks.sender import Receiver
from plughub.webhooks.service import Keeper

_log = structlog.get_logger("plughub.webhooks")


class Endpoints:
    """One entry an active webhook; their spaces are watched with `watcher`. `let_go` hears of one that is active no more."""

    def __init__(self, keeper: Keeper, tls: Tls, tail: Tail, watcher: Watcher, let_go: Callable[[Endpoint], None]) -> None:
        self._keeper = keeper
        self._tls = tls
        self._tail = tail
        self._watcher = watcher
        self._let_go = let_go
        self._known: dict[str, Endpoint] = {}
        self._watched: set[str] = set()

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._known.values())

    def find(self, webhook_id: str) -> Endpoint | None:
        """One of them."""
        return self._known.get(webhook_id)

    def of(self, space_id: str) -> list[Endpoint]:
        """Those of a space."""
        return [endpoint for endpoint in self._known.values() if endpoint.webhook.space_id == space_id]

    def close(self) -> None:
        """Close every connection, watch nothing."""
        for endpoint in self._known.values():
            endpoint.receiver.close()
        for space_id in self._watched:
            self._tail.unwatch(space_id, self._watcher)
        self._watched.clear()

    async def refresh(self, connection: AsyncConnection, space_ids: Sequence[str] | None) -> None:
        """Know the active webhooks of these spaces, or of all, as they are now."""
        active = {row["id"]: row for row in await outbox.list_active(connection, space_ids)}
        known = {id_: endpoint.webhook.revision for id_, endpoint in self._known.items()}
        changed = [id_ for id_, row in active.items() if known.get(id_) != row["revision"]]
        for row in await outbox.read_webhooks(connection, changed) if changed else ():
            self._learn(row)
        for id_ in [id_ for id_, endpoint in self._known.items() if id_ not in active and _is_of(endpoint, space_ids)]:
            endpoint = self._known.pop(id_)
            endpoint.told = False
            self._let_go(endpoint)
            endpoint.receiver.retire()
        for id_, row in active.items():
            found = self._known.get(id_)
            if found is not None:
                found.failing_since = row["failing_since"]
                if found.webhook.project_id is not None:
                    found.of_project = await store.list_servers_of(connection, found.webhook.project_id)
        self._watch()

    def _learn(self, row: RowMapping) -> None:
        try:
            webhook, secrets = self._keeper.webhook(row), self._keeper.secrets(row)
            endpoint = self._known.get(webhook.id)
            if endpoint is None:
                endpoint = Endpoint(webhook, Receiver(webhook.url, self._keeper.allowed, self._tls))
            elif endpoint.webhook.url != webhook.url:
                endpoint.receiver.retire()
                endpoint.receiver, endpoint.failures = Receiver(webhook.url, self._keeper.allowed, self._tls), 0
        except (SealBroken, UpstreamUnreachable) as error:
            # One that cannot be read holds up nobody else.
            _log.error("webhook_not_readable", webhook_id=public_id("webhook", row["id"]), error=str(error))
            return
        turned = endpoint.webhook.ordered != webhook.ordered
        endpoint.webhook, endpoint.from_seq, endpoint.hungry = webhook, row["from_seq"], True
        if turned:
            self._let_go(endpoint)
        endpoint.sign_with(*secrets)
        self._known[webhook.id] = endpoint

    def _watch(self) -> None:
        spaces = {endpoint.webhook.space_id for endpoint in self._known.values()}
        for space_id in self._watched - spaces:
            self._tail.unwatch(space_id, self._watcher)
        for space_id in spaces - self._watched:
            self._tail.watch(space_id, self._watcher)
            self._watcher(space_id)  # what was written before is not told
        self._watched = spaces


def _is_of(endpoint: Endpoint, space_ids: Sequence[str] | None) -> bool:
    return space_ids is None or endpoint.webhook.space_id in space_ids
