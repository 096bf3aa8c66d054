"""Asking a person: what they see, and what is kept between the page and their answer.

What was asked is sealed into the form, bound to the session that it was shown to: an answer cannot come from another browser, nor be about
something else than what was shown (GHSA-rww4-4w9c-7733 and its kin).
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.dashboard.render import OWN, redirect, respond_page
from plughub.dashboard.words import in_words
from plughub.door.oauth_fields import Fields
from plughub.door.request import Request
from plughub.gateway.hub import Hub
from plughub.identity.people import find_person
from plughub.identity.service import get_organization
from plughub.kit.caller import Caller
from plughub.kit.crypto import SealBroken
from plughub.kit.errors import SessionEnded
from plughub.kit.ids import parse_uuid
from plughub.oauth.clients import Client, document_host
from plughub.oauth.devices import CLI
from plughub.oauth.errors import InvalidRequest, InvalidTarget
from plughub.oauth.redirects import form_target, is_loopback, shown_host
from plughub.oauth.resources import Target
from plughub.servers.store import find_server, list_servers

TICKET_S = 600.0
# So many servers can be chosen from; whoever has more gives all, or narrows with a profile.
MOST_SERVERS = 200
_ONE_SERVER = "/servers/"


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody is asked: for whom, what, and where the answer goes. `device_id`: a device gets it, and no browser is sent anywhere."""

    client: Client
    scopes: frozenset[str]
    target: Target
    redirect_uri: str = ""
    user_code: str = ""
    more: Mapping[str, str | None] | None = None


async def find_caller(hub: Hub, request: Request) -> Caller | None:
    """The person whose browser asks, None when nobody is logged in. Raises Forbidden for a form that is not of our own pages."""
    token = hub.cookies.find_token(request)
    if token is None:
        return None
    try:
        return await hub.cookies.admit(request, token)
    except SessionEnded:
        return None


async def to_login(request: Request) -> None:
    """Have the person log in, and come back here."""
    query = request.scope["query_string"].decode("latin-1")
    here = f"{request.scope['path']}?{query}" if query else request.scope["path"]
    await redirect(request, f"/login?next={quote(here, safe='')}")


async def ask(hub: Hub, request: Request, caller: Caller, question: Question, *, action: str) -> None:
    """Show the consent page. Raises InvalidTarget for a server that the person does not have."""
    client, may = question.client, question.scopes & caller.scopes
    async with hub.database.read() as connection:
        person = await find_person(connection, person_id=caller.user_id)
        organization = await get_organization(connection, caller.organization_id)
        servers = await _choice(connection, caller, question)
    uri = question.redirect_uri
    await respond_page(
        request,
        "consent.html",
        form_action=f"{OWN} {form_target(uri)}" if uri else OWN,
        name=client.name,
        person=person.email if person is not None else "",
        organization=organization.name,
        who=_introduced(client),
        redirect_host=shown_host(uri) if uri else "",
        user_code=question.user_code,
        resource=question.target.resource or "",
        warnings=_warnings(question, caller),
        scopes=in_words(may),
        left_out=sorted(question.scopes - may),
        servers=servers,
        ticket=seal(hub, caller, question),
        action=action,
    )


def seal(hub: Hub, caller: Caller, question: Question) -> str:
    """The question as the form carries it."""
    client = question.client
    kept = {
        "at": hub.clock.time(),
        "client": [client.client_id, client.name],
        "scopes": sorted(question.scopes),
        "target": [question.target.resource, question.target.audience],
        "redirect_uri": question.redirect_uri,
        "user_code": question.user_code,
        "more": question.more or {},
    }
    return base64.urlsafe_b64encode(hub.sealer.seal(json.dumps(kept).encode(), _aad(caller))).decode()


def open_ticket(hub: Hub, caller: Caller, fields: Fields) -> Question:
    """The question that a form answers. Raises InvalidRequest for one that was shown to another session, or too long ago."""
    try:
        kept: dict[str, Any] = json.loads(hub.sealer.open(base64.urlsafe_b64decode(fields.get("ticket")), _aad(caller)))
    except (SealBroken, binascii.Error, ValueError) as error:
        raise InvalidRequest("This form does not belong to your session: begin again where you came from") from error
    if hub.clock.time() - kept["at"] > TICKET_S:
        raise InvalidRequest("This form is too old: begin again where you came from")
    client_id, name = kept["client"]
    client = Client("", client_id, "document", name, ())
    return Question(client, frozenset(kept["scopes"]), Target(*kept["target"]), kept["redirect_uri"], kept["user_code"], kept["more"])


def chosen_servers(question: Question, fields: Fields) -> Sequence[str] | None:
    """The servers that the person has chosen; None for all."""
    audience = question.target.audience or ""
    if audience.startswith(_ONE_SERVER):
        return [audience.split("/")[2]]
    if fields.find("servers") != "listed" and not fields.all("server"):  # who has ticked some did not mean all
        return None
    return [id_ for id_ in map(parse_uuid, fields.all("server")) if id_ is not None]


async def _choice(connection: AsyncConnection, caller: Caller, question: Question) -> list[dict[str, str]] | None:
    """The servers to choose from; None where there is no choice: at the door of one server, and for the key of a command line."""
    if question.client.client_id == CLI:
        return None
    audience = question.target.audience or ""
    if audience.startswith(_ONE_SERVER):
        if await find_server(connection, audience.split("/")[2], caller.space_id) is None:
            raise InvalidTarget
        return None
    rows, _ = await list_servers(connection, caller.space_id, None, MOST_SERVERS, 0)
    return [{"id": row["id"], "name": row["name"]} for row in rows]


def _introduced(client: Client) -> str:
    if client.client_id == CLI:
        return "a command line that wants an API key of yours"
    if client.kind == "document":
        return f"a program that {document_host(client.client_id)} vouches for"
    if client.kind == "app":
        return "an app that an administrator of this hub has registered"
    return "a program that has registered itself"


def _warnings(question: Question, caller: Caller) -> list[str]:
    found = []
    if question.client.kind == "dynamic":
        found.append("Nobody vouches for this program: its name is what it calls itself.")
    if question.redirect_uri and is_loopback(question.redirect_uri):
        found.append(
            "The answer goes to a program on this computer, whichever listens there. Only go on when you have started it yourself."
        )
    if question.user_code:
        found.append("Only go on when the device shows this code, and when it is yours.")
    if caller.stdio_allowed and {"admin", "write:servers"} & question.scopes & caller.scopes:
        found.append("Your organisation may register servers that run commands on the machine of this hub: so may whoever you allow this.")
    if "admin" in question.scopes:
        found.append("It asks for everything that an administrator may do.")
    return found


def _aad(caller: Caller) -> str:
    return f"consent:{caller.key_id}"
