"""Who asks in the cases of `contract/cases/`, and what is set up for them: one world a hub, things of its own a case."""

import asyncio
from dataclasses import dataclass, field, replace

import anyio
from pyotp import TOTP

from plughub.identity.invitations import invite
from plughub.identity.links import make_link
from plughub.identity.people import find_person, insert_membership, update_person
from plughub.identity.service import Organization
from plughub.kit.caller import SCOPES
from plughub.kit.ids import new_id, public_id
from tests.contract.cases import Json, filled
from tests.oauth.flow import Flow
from tests.serving import PASSWORD, Browser, RawAnswer, RawCall, Served
from tests.walks.rows import Things, hooked, placed, team

_WITHOUT = "without "
KINDS = (
    *("server", "mcp", "key", "request", "project", "profile", "slug", "collection", "link", "browser"),
    *("organization", "member", "invitation", "app", "grant"),
    *("alert", "notification", "webhook", "delivery", "document", "submission"),
)
# What is made by one request.
_MADE: dict[str, tuple[str, Json]] = {
    "new_alert": ("/api/alerts", {"metric": "calls", "threshold": 1000}),
    "new_notification": ("/api/notifications", {"title": "New", "message": "Something is new"}),
    "new_document": ("/api/documents", {"title": "Refunds", "content": "# Refunds\n\nRefunds are paid within thirty days."}),
}
# What a name in braces makes, besides the ids of `Things`.
_CONFIGS = {
    # Never asked: switched off, so that nothing is dialled.
    "new": {"type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/mcp"}, "enabled": False},
    "down": {"type": "STDIO", "config": {"command": "/nonexistent/command"}},
}


@dataclass
class World:
    """`things` and `key_of` make what a case names, at most once a case or once a hub."""

    served: Served
    organization: Organization
    spent: str
    fixed: dict[str, str]
    _keys: dict[str, str] = field(default_factory=dict)
    _streams: list[tuple[RawCall, asyncio.Task[RawAnswer]]] = field(default_factory=list)

    @classmethod
    async def of(cls, served: Served) -> "World":
        """The hub's world: the operator's things, and an organisation beside them whose burst is used up."""
        await served.browser(await served.operator())  # whoever leaves in a case is not the last owner
        # From here on it is connected, and its health has a history.
        assert (await served.call("GET", f"/api/servers/{served.demo_id}/health")).json()["status"] == "connected"
        spent = await served.key_of(await served.organization("Spent", "free"))
        own = {"name": "Own", "type": "STREAMABLE_HTTP", "config": {"url": "https://example.com/mcp"}, "enabled": False}
        own_server = (await served.call("POST", "/api/servers", own, key=spent)).json()["uuid"]
        own_slug = (await cls._first_profile(served, spent))["slug"]
        while (await served.call("GET", "/api/servers", key=spent)).status_code != 429:
            pass
        first, server = await cls._first_profile(served, served.key), served.demo_id
        fixed = {"server": server, "mcp": public_id("mcp", server), "request": await cls._logged_call(served)}
        fixed |= {name: public_id("org", (await served.operator()).id) for name in ("organization", "new_organization")}
        fixed |= {"own_server": own_server, "own_slug": own_slug}
        fixed |= {"project": first["project_uuid"], "profile": first["uuid"], "slug": first["slug"]}
        return cls(served, await served.operator(), spent, fixed)

    @staticmethod
    async def _first_profile(served: Served, key: str) -> Json:
        """The profile that everybody has."""
        found: Json = (await served.call("GET", "/api/profiles?limit=1", key=key)).json()["profiles"][0]
        return found

    @staticmethod
    async def _logged_call(served: Served) -> str:
        """The request id of a call of the operator's that the log has."""
        called = await served.call("POST", f"/api/servers/{served.demo_id}/tools/echo/execute", {"parameters": {"text": "hello"}})
        request_id = called.headers["x-request-id"]
        with anyio.fail_after(5):
            while (await served.call("GET", f"/api/logs/{request_id}")).status_code == 404:
                pass
        return request_id

    async def key_of(self, who: str) -> str | Browser:
        """The secret that `who` asks with, or the browser that they are logged in with."""
        if who == "person":
            return await self.served.browser(self.organization)
        if who not in self._keys:
            self._keys[who] = await self._made(who)
        return self._keys[who]

    async def _made(self, who: str) -> str:
        served = self.served
        if who.startswith(_WITHOUT):
            return await served.key_of(self.organization, scopes=sorted(SCOPES - {who.removeprefix(_WITHOUT), "admin"}))
        if who in ("revoked", "suspended"):
            made = (await served.call("POST", "/api/auth/keys", {"name": who})).json()
            path = f"/api/auth/keys/{made['id']}"
            await (served.call("DELETE", path) if who == "revoked" else served.call("PATCH", path, {"status": "suspended"}))
            return str(made["key"])
        if who == "expired":
            key = await served.key_of(self.organization, expires_at="2027-01-15T08:00:01Z")
            served.clock.advance(2)
            return key
        simple = {"operator": served.key, "crowd": served.key, "none": "", "bad": "nonsense", "spent": self.spent}
        if who in simple:
            return simple[who]
        if who == "stranger":
            return await served.key_of(await served.organization("Stranger"))
        given = {"test": {"environment": "test"}, "listed": {"servers": []}, "elsewhere": {"allowed_ips": ["192.0.2.1"]}}[who]
        return await served.key_of(self.organization, **given)  # type: ignore[arg-type]

    async def things(self, names: set[str], key: str | Browser = "") -> dict[str, str]:
        """What stands for the names; unknown ones are left as they are. `key`: whose browser is `own_browser`."""
        known = dict(self.fixed)
        missing = Things.missing()
        known |= {f"missing_{kind}": missing.of(kind) for kind in KINDS}
        for prefix, body in _CONFIGS.items():
            if {f"{prefix}_server", f"{prefix}_mcp"} & names:
                made = await self.served.call("POST", "/api/servers", {"name": f"{prefix} one", **body})
                known |= {f"{prefix}_server": made.json()["uuid"], f"{prefix}_mcp": public_id("mcp", made.json()["uuid"])}
        if "new_organization" in names:
            known["new_organization"] = public_id("org", (await self.served.organization("New", "free")).id)
        if {"new_key", "new_token"} & names:
            made = (await self.served.call("POST", "/api/auth/keys", {"name": "New"})).json()
            known |= {"new_key": made["id"], "new_token": made["key"]}
        if {"new_project", "new_profile", "new_slug", "new_collection"} & names:
            place = await placed(self.served, replace(missing, server=known["server"]), "New")
            known |= {f"new_{name}": getattr(place, name) for name in ("project", "profile", "slug", "collection")}
        known |= await self._told_and_shown(names, known["server"])
        doors = {"session": "/mcp", "server_session": "/servers/{server}/mcp", "profile_session": "/mcp/{slug}"}
        known |= {name: await self._session(filled(path, known)) for name, path in doors.items() if name in names}
        known |= await self._of_people(names, key)
        known |= await self._of_oauth(names, key)
        if "new_submission" in names:
            submitted = {"repository": f"https://example.com/somebody/{new_id()}"}
            known["new_submission"] = (await self.served.call("POST", "/api/registry/submit", submitted)).json()["id"]
        if "stream" in names:
            known["stream"] = await self._stream()
        return known

    async def _told_and_shown(self, names: set[str], server: str) -> dict[str, str]:
        """What one request makes, webhooks, and what is shown to everybody."""
        known: dict[str, str] = {}
        for name, (path, body) in _MADE.items():
            if name in names:
                known[name] = (await self.served.call("POST", path, body)).json()["id"]
        if {"new_webhook", "new_delivery"} & names:
            made = await hooked(self.served)
            known |= {"new_webhook": made["webhook"], "new_delivery": made["delivery"]}
        if {"public_collection", "link"} & names:
            known |= await self._handed_on(server)
        return known

    async def _handed_on(self, server: str) -> dict[str, str]:
        """A collection that everybody may see, and the token of the link to it."""
        body = {"name": "Public", "serverUuids": [server], "isPublic": True}
        made = (await self.served.call("POST", "/api/collections", body)).json()["uuid"]
        link = (await self.served.call("POST", f"/api/collections/{made}/share")).json()["share_token"]
        return {"public_collection": made, "link": link}

    async def _of_people(self, names: set[str], key: str | Browser) -> dict[str, str]:
        """What the names say of people: of new ones, or of the one who asks."""
        known: dict[str, str] = {}
        if {"new_member", "new_invitation"} & names:
            made_team = await team(self.served)
            known |= {"new_member": made_team["member"], "new_invitation": made_team["invitation"]}
        if {"second", "invited_token"} & names:
            known |= await self._second(key, invited="invited_token" in names)
        if "own_browser" in names:
            known["own_browser"] = (await self.served.call("GET", "/api/auth/sessions", key=key)).json()["sessions"][0]["id"]
        if "setup_code" in names:
            known["setup_code"] = await self.served.app.hub.accounts.make_setup_code()
        if {"email", "reset_token", "verify_token"} & names:
            known |= await self._account()
        if "founded" in names:
            made = await self.served.call("POST", "/api/organizations", {"name": "Founded"}, key=key)
            known["founded"] = made.json()["id"]
        if "own_username" in names:
            known["own_username"] = "ada-" + new_id()[-12:]
            shown = {"username": known["own_username"], "bio": "Computes", "is_public": True, "social_links": {"github": "ada"}}
            somebody = key if isinstance(key, Browser) else await self.served.browser(self.organization)
            assert (await self.served.call("PATCH", "/api/profile", shown, key=somebody)).status_code == 200
        if {"totp", "code"} & names:
            known |= await self._authenticator(key, confirmed="totp" in names)
        return known

    async def _account(self) -> dict[str, str]:
        """Somebody with the password of everybody, and the links that they have asked for."""
        accounts, email = self.served.app.hub.accounts, f"{new_id()}@example.com"
        somebody = await self.served.browser(self.organization, email=email)
        async with self.served.database.unit_of_work() as uow:
            await update_person(uow, somebody.user_id, {"verified_at": None})
            reset = await make_link(uow, accounts.sealer, "reset", email, shown=True)
            verify = await make_link(uow, accounts.sealer, "verify", email, shown=True)
        return {"email": email, "reset_token": reset, "verify_token": verify}

    async def _authenticator(self, key: str | Browser, *, confirmed: bool) -> dict[str, str]:
        """The person's authenticator is set up, and in use when it is `confirmed`: the code that it shows."""
        secret = (await self.served.call("POST", "/api/auth/totp", {"password": PASSWORD}, key=key)).json()["secret"]
        step = int(self.served.clock.time()) // 30
        if confirmed:
            await self.served.call("POST", "/api/auth/totp/confirm", {"code": TOTP(secret).generate_otp(step)}, key=key)
        return {"totp": TOTP(secret).generate_otp(step + 1), "code": TOTP(secret).generate_otp(step)}

    async def _second(self, key: str | Browser, *, invited: bool) -> dict[str, str]:
        """Another organisation that the person is in, or is invited to."""
        assert isinstance(key, Browser)
        other = await self.served.organization("Second")
        hub, known = self.served.app.hub, {"second": public_id("org", other.id)}
        async with self.served.database.unit_of_work() as uow:
            person = await find_person(uow.connection, person_id=key.user_id)
            assert person is not None
            if invited:
                _, known["invited_token"] = await invite(uow, hub.sealer, other.founder(), person.email, "member", mails=False)
            else:
                await insert_membership(uow, other.id, key.user_id, "member")
        return known

    async def _of_oauth(self, names: set[str], key: str | Browser) -> dict[str, str]:
        """An app of the operator's with what somebody allows it, and devices that wait."""
        found: dict[str, str] = {}
        if {"new_app", "app_secret", "auth_code", "access_token", "refresh_token", "own_grant"} & names:
            somebody = key if isinstance(key, Browser) else await self.served.browser(self.organization)
            app = await Flow.app(self.served, somebody)
            tokens = await app.tokens(scope="read:servers")
            code = await app.code(scope="read:servers", code_challenge=None, code_challenge_method=None)
            grants = (await self.served.call("GET", "/api/oauth/grants", key=somebody)).json()["grants"]
            found |= {"new_app": app.client_id, "app_secret": app.secret or "", "auth_code": code, "own_grant": grants[0]["id"]}
            found |= {name: tokens[name] for name in ("access_token", "refresh_token")}
        if {"cli_device", "user_code"} & names:
            begun = (await self.served.call("POST", "/api/cli/auth/initiate", key="")).json()
            found |= {"cli_device": begun["device_code"], "user_code": begun["user_code"]}
        return found

    async def _session(self, path: str) -> str:
        """The id of a session of the operator's at that door."""
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "client", "version": "1"}}
        return (await self.served.rpc("initialize", params, path=path)).headers["mcp-session-id"]

    async def _stream(self) -> str:
        """The id of a stream of `/sse` that is open until `close`: its first event names it."""
        call = RawCall(self.served, "GET", "/sse", {"Accept": "text/event-stream"}).piece(b"")
        self._streams.append((call, call.start()))
        await call.answer.until(lambda: b"\n\n" in call.answer.body)
        return call.answer.body.decode().partition("session_id=")[2].partition("\n")[0]

    async def close(self) -> None:
        """End the streams."""
        for call, task in self._streams:
            call.leave()
            await task
