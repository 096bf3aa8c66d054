"""Accounts over HTTP: registering, logging in and out, passwords, addresses, and that nobody learns who has an account."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import func, select

from plughub.api import auth_shapes as shapes
from plughub.db.tables import job, person, person_session
from plughub.identity.accounts import Accounts, Crypto
from plughub.identity.links import PendingLink, list_pending
from plughub.jobs import letter, prune_people
from plughub.jobs.loop import JobLoop
from plughub.kit.errors import Forbidden, LinkNotFound
from plughub.kit.ids import public_id
from plughub.settings import Settings
from tests.fakes.mail_server import MailServer
from tests.serving import PASSWORD, Browser, Served, serving

pytestmark = pytest.mark.anyio
AUTH = "/api/auth"
NEW = "another good one"


async def post(served: Served, path: str, body: object = None, who: Browser | str = "") -> httpx2.Response:
    return await served.call("POST", AUTH + path, body, key=who)


def cookie_of(answer: httpx2.Response) -> Browser:
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert name == "plughub"
    return Browser("", rest.partition(";")[0])


async def logged_in(served: Served, email: str, password: str = PASSWORD) -> Browser:
    answer = await post(served, "/login", {"email": email, "password": password})
    assert answer.status_code == 200, answer.text
    shapes.LoginOut.model_validate(answer.json())
    return cookie_of(answer)


async def account(served: Served, email: str) -> None:
    assert (await post(served, "/register", {"name": "Ada", "email": email, "password": PASSWORD})).status_code == 201


async def deliver(served: Served) -> list[PendingLink]:
    """Run the letters that wait; the links that the operator has now."""
    hub = served.app.hub
    loop = JobLoop(served.database, {letter.KIND: letter.handler(hub.settings, hub.sealer)})
    with_letters = select(func.count()).select_from(job).where(job.c.kind == letter.KIND)
    for _ in range(100):
        await loop.run_due()
        async with served.database.read() as connection:
            if not (await connection.execute(with_letters)).scalar_one():
                return await list_pending(connection, hub.sealer, hub.clock.time(), 100)
    raise AssertionError("letters are left")


async def link(served: Served, kind: str, email: str) -> str:
    return next(found.token for found in await deliver(served) if (found.kind, found.email) == (kind, email))


async def people(served: Served) -> int:
    async with served.database.read() as connection:
        return int((await connection.execute(select(func.count()).select_from(person))).scalar_one())


@pytest.mark.requirement("people.register-login")
async def test_somebody_registers_logs_in_looks_around_and_leaves(served: Served) -> None:
    made = await post(served, "/register", {"name": " Ada Lovelace ", "email": "Ada@Example.com", "password": PASSWORD})
    read = shapes.RegisteredOut.model_validate(made.json())
    assert (made.status_code, read.status, read.email, read.user and read.user.name) == (
        201,
        "registered",
        "ada@example.com",
        "Ada Lovelace",
    )
    assert "set-cookie" not in made.headers and PASSWORD not in made.text
    ada = await logged_in(served, "ADA@example.com ")
    me = shapes.MeOut.model_validate((await served.call("GET", AUTH + "/me", key=ada)).json())
    assert (me.organization.role, me.organization.name, me.organization.slug) == ("owner", "Ada Lovelace", "ada-lovelace")
    assert [place.id for place in me.organizations] == [me.organization.id]
    limits = (await served.call("GET", "/api/rate-limit", key=ada)).json()
    assert limits["tier"] == "session"
    assert (await served.call("GET", "/api/servers", key=ada)).json()["servers"] == [], "an organisation of their own"
    for environment in ("live", "test"):
        profiles = await served.call("GET", "/api/profiles", key=ada, headers={"X-Plughub-Environment": environment})
        assert [profile["is_default"] for profile in profiles.json()["profiles"]] == [True]
    other = await logged_in(served, "ada@example.com")
    listed = shapes.SessionList.model_validate((await served.call("GET", AUTH + "/sessions", key=ada)).json())
    assert [session.current for session in listed.sessions].count(True) == 1 and listed.total == 2
    elsewhere = next(session.id for session in listed.sessions if not session.current)
    assert (await served.call("DELETE", f"{AUTH}/sessions/{elsewhere}", key=ada)).status_code == 204
    assert (await served.call("GET", AUTH + "/me", key=other)).status_code == 401
    out = await post(served, "/logout", who=ada)
    assert out.status_code == 204 and "Max-Age=0" in out.headers["set-cookie"]
    assert (await served.call("GET", AUTH + "/me", key=ada)).status_code == 401
    assert (await post(served, "/logout", who=ada)).status_code == 401


@pytest.mark.requirement("people.register-login")
async def test_every_login_has_an_id_of_its_own_and_the_database_has_neither_id_nor_password(served: Served) -> None:
    await account(served, "own@example.com")
    one, two = await logged_in(served, "own@example.com"), await logged_in(served, "own@example.com")
    assert one.token != two.token and len(one.token) == 43
    async with served.database.read() as connection:
        rows = [*(await connection.execute(select(person_session))), *(await connection.execute(select(person)))]
    assert not any(secret in repr(row) for row in rows for secret in (one.token, two.token, PASSWORD))


@pytest.mark.requirement("people.no-enumeration")
async def test_a_wrong_password_and_an_unknown_address_are_told_alike(served: Served) -> None:
    await account(served, "known@example.com")
    answers = [
        await post(served, "/login", {"email": email, "password": "wrong horse"}) for email in ("known@example.com", "unknown@example.com")
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
    texts = [answer.text.replace(answer.headers["x-request-id"], "ID") for answer in answers]
    assert texts[0] == texts[1]
    assert set(answers[0].headers) == set(answers[1].headers)
    for number in range(12):
        seen = set()
        for email in ("known@example.com", "unknown@example.com"):
            answer = await post(served, "/login", {"email": email, "password": "wrong horse"})
            seen.add((answer.status_code, answer.headers.get("retry-after"), answer.json()["error"]["message"]))
        assert len(seen) == 1, (number, seen)
    assert answer.status_code == 429 and answer.json()["error"]["details"]["policy"] == "account"
    served.clock.advance(400)
    assert (await post(served, "/login", {"email": "known@example.com", "password": PASSWORD})).status_code == 200


@pytest.mark.requirement("people.no-enumeration")
async def test_a_login_takes_as_long_for_nobody_as_for_somebody(lite: Served) -> None:
    """The whole way, interleaved; 300 pairs are measured by `python -m benchmarks.login`, where nothing else runs."""
    await account(lite, "timed@example.com")
    took: dict[str, list[float]] = {"timed@example.com": [], "nobody@example.com": []}
    for _ in range(12):
        for email, times in took.items():
            lite.clock.advance(400)
            began = time.perf_counter()
            assert (await post(lite, "/login", {"email": email, "password": "wrong horse"})).status_code == 401
            times.append(time.perf_counter() - began)
    known, unknown = (min(times) for times in took.values())
    assert unknown > known / 2, "without a hash for nobody it would be a hundredth"


@pytest.mark.requirement("people.throttled")
async def test_the_sixth_attempt_of_an_address_waits_and_the_headers_say_so(empty_url: str, tmp_path: Path, anyio_backend: str) -> None:
    async with serving(empty_url, tmp_path, credential_attempts=5) as hub:
        for left in range(4, -1, -1):
            answer = await post(hub, "/login", {"email": f"x{left}@example.com", "password": "wrong horse"})
            assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (401, str(left))
            assert (answer.headers["x-ratelimit-limit"], answer.headers["ratelimit-policy"]) == ("5", '"credentials";q=5;w=900')
        for path, body in (
            ("/login", {"email": "x@example.com", "password": "wrong horse"}),
            ("/register", {"name": "x", "email": "x@example.com", "password": PASSWORD}),
            ("/password/forgot", {"email": "x@example.com"}),
            ("/password/reset", {"token": "x", "password": PASSWORD}),
            ("/verify", {"token": "x"}),
        ):
            refused = await post(hub, path, body)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "180")
            assert refused.json()["error"]["details"] | {"hint": ""} == {"policy": "address", "limit": 5, "retry_after": 180, "hint": ""}
        hub.clock.advance(180)
        assert (await post(hub, "/login", {"email": "x@example.com", "password": "wrong horse"})).status_code == 401


@pytest.mark.requirement("people.passwords")
async def test_a_changed_password_ends_every_other_session(served: Served) -> None:
    await account(served, "change@example.com")
    here, there = await logged_in(served, "change@example.com"), await logged_in(served, "change@example.com")
    wrong = await post(served, "/password", {"current_password": "wrong horse", "new_password": NEW}, here)
    weak = await post(served, "/password", {"current_password": PASSWORD, "new_password": "change@example.com"}, here)
    assert (wrong.status_code, weak.status_code) == (401, 400)
    assert (await post(served, "/password", {"currentPassword": PASSWORD, "newPassword": NEW}, here)).status_code == 204
    assert (await served.call("GET", AUTH + "/me", key=here)).status_code == 200
    assert (await served.call("GET", AUTH + "/me", key=there)).status_code == 401
    assert (await post(served, "/login", {"email": "change@example.com", "password": PASSWORD})).status_code == 401
    await logged_in(served, "change@example.com", NEW)


@pytest.mark.requirement("people.passwords", "people.mail")
async def test_a_forgotten_password_is_set_by_a_link_that_is_good_once(served: Served) -> None:
    await account(served, "forgot@example.com")
    before = await logged_in(served, "forgot@example.com")
    texts = set()
    for email in ("forgot@example.com", "nobody@example.com"):
        answer = await post(served, "/password/forgot", {"email": email})
        texts.add((answer.status_code, answer.text))
    assert len(texts) == 1
    older = await link(served, "reset", "forgot@example.com")
    assert not [found for found in await deliver(served) if found.email == "nobody@example.com"]
    await post(served, "/password/forgot", {"email": "Forgot@example.com"})
    token = await link(served, "reset", "forgot@example.com")
    assert (await post(served, "/password/reset", {"token": older, "password": NEW})).status_code == 404, "the newer one counts"
    assert (await post(served, "/password/reset", {"token": token, "password": "short"})).status_code == 400
    done = await post(served, "/password/reset", {"token": token, "password": NEW})
    assert done.status_code == 200 and "set-cookie" not in done.headers
    assert (await post(served, "/password/reset", {"token": token, "password": NEW})).status_code == 404
    assert (await served.call("GET", AUTH + "/me", key=before)).status_code == 401
    await logged_in(served, "forgot@example.com", NEW)
    await post(served, "/password/forgot", {"email": "forgot@example.com"})
    late = await link(served, "reset", "forgot@example.com")
    served.clock.advance(3601)
    assert (await post(served, "/password/reset", {"token": late, "password": NEW})).status_code == 404


@pytest.mark.requirement("people.verify-address")
async def test_an_address_is_confirmed_by_the_link_that_the_operator_hands_over(served: Served) -> None:
    await account(served, "verify@example.com")
    ada = await logged_in(served, "verify@example.com")
    first = await link(served, "verify", "verify@example.com")
    assert (await post(served, "/verify/resend", who=ada)).status_code == 202
    token = await link(served, "verify", "verify@example.com")
    assert (await post(served, "/verify", {"token": first})).status_code == 404
    done = shapes.VerifiedOut.model_validate((await post(served, "/verify", {"token": token})).json())
    assert done.user.verified
    assert (await served.call("GET", AUTH + "/me", key=ada)).json()["user"]["verified"] is True
    await post(served, "/verify/resend", who=ada)
    assert not [found for found in await deliver(served) if found.email == "verify@example.com"], "there is nothing left to confirm"


@pytest.mark.requirement("people.registration-modes")
async def test_who_may_register_is_set_or_follows_from_the_address(lite: Served) -> None:
    accounts = lite.app.hub.accounts
    for given, wanted in (
        ({}, "open"),
        ({"host": "127.0.0.1"}, "open"),
        ({"host": "0.0.0.0"}, "invite"),
        ({"host": "hub.internal"}, "invite"),
        ({"public_url": "https://hub.example"}, "invite"),
        ({"registration": "closed"}, "closed"),
        ({"host": "0.0.0.0", "registration": "open"}, "open"),
    ):
        other = Accounts(lite.database, Settings(**given), Crypto({1: b"p" * 32}, accounts.sealer))  # type: ignore[arg-type]
        assert other.registration == wanted, given
        if wanted == "open":
            continue
        for invitation in (None, "nonsense"):
            with pytest.raises(LinkNotFound if wanted == "invite" and invitation else Forbidden) as refused:
                await other.register("Ada", "refused@example.com", PASSWORD, invitation)
            assert refused.type is LinkNotFound or refused.value.details["reason"] == f"registration_{wanted}"


@pytest.fixture
def empty_url(sqlite_template: Path, tmp_path: Path) -> str:
    """An embedded database for a hub of another kind than the others'."""
    shutil.copyfile(sqlite_template, tmp_path / "other.db")
    return f"sqlite:///{tmp_path / 'other.db'}"


@pytest.fixture
async def mailing(empty_url: str, tmp_path: Path, anyio_backend: str) -> AsyncIterator[tuple[Served, MailServer]]:
    async with (
        MailServer() as mails,
        serving(empty_url, tmp_path, smtp_url=f"smtp+plain://127.0.0.1:{mails.port}", mail_from="hub@example.com") as hub,
    ):
        yield hub, mails


@pytest.mark.requirement("people.mail", "people.no-enumeration", "people.verify-address")
async def test_with_mail_a_registration_is_answered_alike_and_the_address_learns_the_rest(mailing: tuple[Served, MailServer]) -> None:
    hub, mails = mailing
    before = await people(hub)
    body = {"name": "Ada\u2028Bcc", "email": "ada@example.com", "password": PASSWORD}
    first = await post(hub, "/register", body)
    assert first.json() == {"status": "verification_sent", "email": "ada@example.com", "user": None}
    assert await deliver(hub) == [], "with mail the operator sees no links"
    [mail] = mails.mails
    assert (mail["To"], mail["From"], mail["Subject"]) == ("ada@example.com", "hub@example.com", "Confirm your address")
    token = mail.get_content().partition("/verify?token=")[2].split()[0]
    assert await people(hub) == before, "nobody can take an address that they do not read"
    assert (await post(hub, "/login", {"email": "ada@example.com", "password": PASSWORD})).status_code == 401
    assert (await post(hub, "/verify", {"token": token})).json()["user"]["verified"] is True
    assert (await post(hub, "/verify", {"token": token})).status_code == 404
    await logged_in(hub, "ada@example.com")
    again = await post(hub, "/register", {**body, "password": NEW})
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    await deliver(hub)
    assert mails.mails[-1]["Subject"] == "You have an account already"
    await logged_in(hub, "ada@example.com")
    await post(hub, "/password/forgot", {"email": "ada@example.com"})
    await post(hub, "/password/forgot", {"email": "nobody@example.com"})
    await deliver(hub)
    assert [mail["To"] for mail in mails.mails[2:]] == ["ada@example.com"]
    token = mails.mails[-1].get_content().partition("/reset-password?token=")[2].split()[0]
    assert (await post(hub, "/password/reset", {"token": token, "password": NEW})).status_code == 200
    await deliver(hub)
    assert mails.mails[-1]["Subject"] == "Your login was changed"


@pytest.mark.requirement("people.throttled")
async def test_nobody_is_flooded_with_mails(served: Served) -> None:
    statuses = [(await post(served, "/password/forgot", {"email": "flood@example.com"})).status_code for _ in range(8)]
    assert 429 in statuses and statuses[0] == 202
    team = await served.organization("Flooding")
    path, key = f"/api/organizations/{public_id('org', team.id)}/invitations", await served.key_of(team)
    statuses = [(await served.call("POST", path, {"email": "flood@example.com"}, key=key)).status_code for _ in range(8)]
    assert statuses[:5] == [201] * 5 and 429 in statuses
    assert (await served.call("POST", path, {"email": "other@example.com"}, key=key)).status_code == 201
    await account(served, "resend@example.com")
    browser = await logged_in(served, "resend@example.com")
    statuses = [(await post(served, "/verify/resend", who=browser)).status_code for _ in range(8)]
    assert statuses[0] == 202 and 429 in statuses


@pytest.mark.requirement("people.passwords")
async def test_logins_at_once_are_judged_two_at_a_time_and_all_are_answered(lite: Served) -> None:
    await account(lite, "many@example.com")
    answers = await asyncio.gather(*(post(lite, "/login", {"email": "many@example.com", "password": PASSWORD}) for _ in range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4


@pytest.mark.requirement("people.sessions")
async def test_what_is_over_is_removed_from_the_database(lite: Served) -> None:
    await account(lite, "pruned@example.com")
    await logged_in(lite, "pruned@example.com")
    await post(lite, "/password/forgot", {"email": "pruned@example.com"})
    await deliver(lite)
    lite.clock.advance(20 * 86_400)
    loop = JobLoop(lite.database, {prune_people.KIND: prune_people.handler(lite.app.hub.settings)})
    while await loop.run_due():
        pass
    async with lite.database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(person_session))).scalar_one() == 0
        assert await list_pending(connection, lite.app.hub.sealer, 0.0, 100) == []


async def test_bad_bodies_name_their_field_and_never_repeat_a_password(lite: Served) -> None:
    for body, field in (
        ({"email": "a@b.c"}, "password"),
        ({"email": "a@b.c", "password": "x" * 300}, "password"),
        ({"email": 1, "password": "secret-word"}, "email"),
    ):
        answer = await post(lite, "/login", body)
        assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, field)
        assert "secret-word" not in answer.text and "xxxx" not in answer.text
