"""Who asks in the cases of `contract/cases/`, and what is set up for them: one world a hub, things of its own a case."""

from dataclasses import dataclass, field

import anyio

from plughub.identity.service import Organization
from plughub.kit.caller import SCOPES
from plughub.kit.ids import public_id
from tests.serving import Served
from tests.walks.rows import Things

_WITHOUT = "without "
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
    own_server: str
    request: str
    _keys: dict[str, str] = field(default_factory=dict)

    @classmethod
    async def of(cls, served: Served) -> "World":
        """The hub's world: the operator's things, and an organisation beside them whose burst is used up."""
        # From here on it is connected, and its health has a history.
        assert (await served.call("GET", f"/api/servers/{served.demo_id}/health")).json()["status"] == "connected"
        spent = await served.key_of(await served.organization("Spent", "free"))
        own = {"name": "Own", "type": "STREAMABLE_HTTP", "config": {"url": "https://example.com/mcp"}, "enabled": False}
        own_server = (await served.call("POST", "/api/servers", own, key=spent)).json()["uuid"]
        while (await served.call("GET", "/api/servers", key=spent)).status_code != 429:
            pass
        return cls(served, await served.operator(), spent, own_server, await cls._logged_call(served))

    @staticmethod
    async def _logged_call(served: Served) -> str:
        """The request id of a call of the operator's that the log has."""
        called = await served.call("POST", f"/api/servers/{served.demo_id}/tools/echo/execute", {"parameters": {"text": "hello"}})
        request_id = called.headers["x-request-id"]
        with anyio.fail_after(5):
            while (await served.call("GET", f"/api/logs/{request_id}")).status_code == 404:
                pass
        return request_id

    async def key_of(self, who: str) -> str:
        """The secret that `who` asks with."""
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
        given = {"test": {"environment": "test"}, "listed": {"servers": []}}[who]
        return await served.key_of(self.organization, **given)  # type: ignore[arg-type]

    async def things(self, names: set[str]) -> dict[str, str]:
        """What stands for the names; unknown ones are left as they are."""
        known = {"server": self.served.demo_id, "mcp": public_id("mcp", self.served.demo_id), "own_server": self.own_server}
        known["request"] = self.request
        missing = Things.missing()
        known |= {f"missing_{kind}": missing.of(kind) for kind in ("server", "mcp", "key", "request")}
        for prefix, body in _CONFIGS.items():
            if {f"{prefix}_server", f"{prefix}_mcp"} & names:
                made = await self.served.call("POST", "/api/servers", {"name": f"{prefix} one", **body})
                known |= {f"{prefix}_server": made.json()["uuid"], f"{prefix}_mcp": public_id("mcp", made.json()["uuid"])}
        if "new_key" in names:
            made = await self.served.call("POST", "/api/auth/keys", {"name": "New"})
            known["new_key"] = made.json()["id"]
        return known
