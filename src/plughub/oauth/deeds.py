"""What the audit tells of the authorization server: its clients, and what people allow them; never a code, a token or a secret."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Row

from plughub.db.audit import THE_HUB, Deed, Hidden
from plughub.kit.ids import public_id
from plughub.oauth.clients import Client

CLIENT_REGISTERED: Final = "client.registered"
DEVICE_APPROVED: Final = "device.approved"
DEVICE_DENIED: Final = "device.denied"


def app_deed(action: str, organization_id: str, before: Client | None, after: Client | None) -> Deed:
    """What was done to an app: `before` None for a new one, `after` None for one that is gone."""
    app = after or before
    assert app is not None
    was, now_is = (_audited(side) if side is not None else {} for side in (before, after))
    return Deed(action, "app", app.client_id, app.name, organization_id=organization_id, before=was, after=now_is)


def client_deed(made: Client, organization_id: str) -> Deed:
    """A client has registered itself, for nobody in particular: it is told to the operator's organisation."""
    return Deed(CLIENT_REGISTERED, "client", made.client_id, made.name, organization_id=organization_id, after=_audited(made))


def allowed_deed(action: str, grant: Mapping[str, Any], servers: list[str] | None) -> Deed:
    """A person has allowed a client something; `grant` is the row."""
    allowed = {**_granted(grant), "servers": "*" if servers is None else servers}
    return Deed(action, "grant", grant["id"], grant["client_name"], organization_id=grant["organization_id"], after=allowed)


def ended_deed(action: str, grant: Row[Any], reason: str, by: str | None = None) -> Deed:
    """A grant has ended, and why. Whoever is of another organisation, `by`, is not told to this one: it was the hub."""
    actor = None if by in (None, grant.organization_id) else THE_HUB
    was, why = _granted(grant._mapping), {"reason": reason}
    return Deed(action, "grant", grant.id, grant.client_name, organization_id=grant.organization_id, before=was, note=why, actor=actor)


def device_deed(action: str, device_id: str, name: str, organization_id: str, after: Mapping[str, Any]) -> Deed:
    """Somebody has decided about a device that waits."""
    return Deed(action, "device", device_id, name, organization_id=organization_id, before={"status": "pending"}, after=after)


def _audited(client: Client) -> dict[str, Any]:
    plain = ("name", "description", "redirect_uris", "grant_types", "scopes", "auth_method", "client_uri")
    fields = {name: getattr(client, name) for name in plain}
    return fields | ({} if client.secret_digest is None else {"client_secret": Hidden(client.secret_digest)})


def _granted(grant: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "client_id": grant["client_id"],
        "user_id": public_id("user", grant["person_id"]),
        "scopes": grant["scopes"],
        "resource": grant["resource"],
    }
