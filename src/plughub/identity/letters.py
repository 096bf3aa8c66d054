"""What people are written: made in the transaction of what it is about, sent by a job, so that no request waits for a mail server.

A letter is asked for alike whether its address belongs to anybody or not: only the job looks. Without a mail server the job makes the
link nevertheless, and the operator hands it over.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from plughub.db.engine import Database
from plughub.db.jobs import add_job
from plughub.db.unit_of_work import UnitOfWork
from plughub.identity.links import make_link
from plughub.identity.people import find_person
from plughub.kit.crypto import Sealer

JOB = "letter"
LetterKind = Literal["register", "verify", "reset", "invitation", "known", "changed", "notification"]
# Where the links lead: pages of the hub.
PATHS: Mapping[str, str] = {
    "register": "/verify",
    "verify": "/verify",
    "reset": "/reset-password",
    "invitation": "/invitation",
    "setup": "/setup",
}
_AAD = "job:letter"
# What a letter may repeat of what somebody else has written, and how much of it.
_GIVEN = {"organization": 100, "inviter": 100, "title": 200, "message": 1000}


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as it is sent."""

    to: str
    subject: str
    text: str


async def post(uow: UnitOfWork, sealer: Sealer, kind: LetterKind, email: str, data: Mapping[str, Any] | None = None) -> None:
    """Ask for a letter. What it holds is sealed: jobs can be read by whoever reads the database."""
    body = json.dumps({"kind": kind, "email": email, "data": dict(data or {})})
    await add_job(uow, JOB, {"sealed": sealer.seal(body.encode(), _AAD).hex()})


async def prepare(database: Database, sealer: Sealer, payload: Mapping[str, Any], base_url: str, *, mails: bool) -> Mail | None:
    """The mail that a job is to send, its link made; None when there is nothing to say or nobody to say it to by mail."""
    letter = json.loads(sealer.open(bytes.fromhex(payload["sealed"]), _AAD))
    kind, email, data = letter["kind"], letter["email"], letter["data"]
    token = data.get("token")
    if kind in ("register", "verify", "reset"):
        async with database.unit_of_work() as uow:
            person = await find_person(uow.connection, email=email)
            if kind == "register" and person is not None:
                kind = "known"
            elif kind != "register" and person is None:
                return None
            else:
                token = await make_link(uow, sealer, kind, email, data=data, shown=not mails)
    return compose(kind, email, f"{base_url}{PATHS.get(kind, '/login')}" + (f"?token={token}" if token else ""), data) if mails else None


def compose(kind: LetterKind, email: str, url: str, data: Mapping[str, Any]) -> Mail:
    """The words of a letter."""
    subject, lines = _WORDS[kind]
    # Names and words come from people: nothing of them reaches a header, and no line of theirs the text.
    names = {name: " ".join(str(data.get(name, "")).split())[:most] for name, most in _GIVEN.items()}
    text = lines.format(url=url, **names)
    return Mail(email, subject, text + "\n\nIf you did not expect this mail, you can ignore it.\n")


_WORDS: Mapping[LetterKind, tuple[str, str]] = {
    "register": ("Confirm your address", "Open this link to finish your registration at Plughub. It is good for 24 hours.\n\n{url}"),
    "verify": ("Confirm your address", "Open this link to confirm that this address is yours. It is good for 7 days.\n\n{url}"),
    "reset": ("Set a new password", "Open this link to set a new password. It is good for one hour.\n\n{url}"),
    "invitation": ("You are invited to an organisation", "{inviter} invites you to {organization}. The link is good for 7 days.\n\n{url}"),
    "known": ("You have an account already", "Somebody tried to register with this address, which has an account: log in here.\n\n{url}"),
    "notification": (
        "A notification of Plughub",
        "{title}\n\n{message}\n\nMore at {url}. Whoever is logged in switches these mails off with PATCH /api/notifications/preferences.",
    ),
    "changed": (
        "Your login was changed",
        "The password or the second factor of your account was changed. If it was not you, set a new one.\n\n{url}",
    ),
}
