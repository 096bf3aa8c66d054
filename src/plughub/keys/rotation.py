"""A key gets a new secret, in good order or because the old one was found in public."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import KEY_REVOKED, KEY_ROTATED, KEY_UPDATED, EarlierSecrets
from plughub.keys import store
from plughub.keys.schemas import Key
from plughub.keys.secret import PREFIX_LENGTH, generate, parse
from plughub.keys.service import REVOKED, Peppers, deed, emit, find_key, get_key, require_wide_caller
from plughub.kit.caller import Caller
from plughub.kit.errors import Conflict

_MAX_URL = 500


async def rotate_key(uow: UnitOfWork, caller: Caller, key_id: str, overlap_s: int, peppers: Peppers) -> tuple[Key, str]:
    """The key with a new secret, and that secret. The one before works for `overlap_s` more, those before it no longer than that.

    Raises KeyNotFound, Forbidden (wider than the caller), Conflict (revoked, or rotated at the same time by somebody else).
    """
    key = await get_key(uow.connection, caller, key_id)
    await require_wide_caller(uow, caller, key)
    if key.status == "revoked":
        raise Conflict(REVOKED)
    now = uow.clock.time()
    secret = generate(key.kind, key.environment)
    values: dict[str, Any] = {"prefix": secret[:PREFIX_LENGTH], "last4": secret[-4:], "rotated_at": now}
    stored = {**values, "digest": peppers.digests(secret)[0], "pepper_version": peppers.current}
    if not await store.replace_secret(uow, key_id, key.generation, now + overlap_s, stored):
        raise Conflict("API key was changed at the same time")
    rotated = await get_key(uow.connection, caller, key_id)
    earlier: EarlierSecrets = {"before": rotated.generation, "until": now + overlap_s}
    emit(uow, KEY_ROTATED, rotated, earlier_secrets=earlier)
    uow.audit(deed(KEY_ROTATED, key, rotated))
    return rotated, secret


async def end_leaked(uow: UnitOfWork, reports: Mapping[str, str | None], peppers: Peppers) -> frozenset[str]:
    """Revoke at once what was found in public: secrets with the addresses they were found at. Gives those that are or were of a key.

    A key whose newest secret is among them is revoked; an earlier secret ends, with those before it, and its key lives on.
    """
    known = set()
    for secret in sorted(reports):  # in one order, so that two reports cannot wait for each other
        if parse(secret) is not None and await _end(uow, peppers.digests(secret), reports[secret]):
            known.add(secret)
    return frozenset(known)


async def _end(uow: UnitOfWork, digests: Sequence[bytes], url: str | None) -> bool:
    found = await store.find_by_digest(uow.connection, digests)
    retired = None if found is not None else await store.find_by_retired_digest(uow.connection, digests)
    row = found or retired
    if row is None:
        return False
    if row["status"] == "revoked":
        return True
    now = uow.clock.time()
    key = await find_key(uow.connection, row["id"], row["space_id"])
    why: dict[str, Any] = {"reason": "leaked", **({"url": url.partition("?")[0][:_MAX_URL]} if url else {})}
    if key is None:
        return False
    if retired is None:
        await store.update_key(uow, key.id, {"status": "revoked", "revoked_at": now})
        emit(uow, KEY_REVOKED, key, **why)
        uow.audit(deed(KEY_REVOKED, key, replace(key, status="revoked", revoked_at=now), why))
    elif retired["valid_until"] > now:
        before = retired["retired_generation"] + 1
        await store.end_retired(uow, key.id, before, now)
        earlier: EarlierSecrets = {"before": before, "until": now}
        emit(uow, KEY_UPDATED, key, changed=["earlier_secrets"], earlier_secrets=earlier, **why)
        uow.audit(deed(KEY_UPDATED, key, key, {**why, "secrets_ended_before": before}))
    return True
