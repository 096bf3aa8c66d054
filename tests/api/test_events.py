"""The event stream: every event once, in order, whatever breaks off in between; and who may hear it."""

import asyncio
import json
from urllib.parse import quote

import anyio
import pytest
from sqlalchemy import update

from plughub.api.events import EventStreams
from plughub.db.tables import space
from plughub.door.dispatch import STOPPING
from plughub.door.request import Request
from plughub.kit.errors import Unavailable
from plughub.kit.waits import Waits
from tests.serving import Json, RawCall, Served

pytestmark = pytest.mark.anyio


class Listener:
    """A client of the stream: what it was sent, frame by frame, as `(id, event, data)`."""

    def __init__(
        self, served: Served, query: str = "", *, key: str | None = None, path: str = "/api/events", last_id: str = "", origin: str = ""
    ) -> None:
        headers = {"last-event-id": last_id} if last_id else {}
        if origin:
            headers["origin"] = origin
        self.call = RawCall(served, "GET", path, headers, key).piece(b"")
        self.call.scope["query_string"] = query.encode()
        self.running: asyncio.Task[object] | None = None

    async def opened(self) -> "Listener":
        self.running = self.call.start()
        await self.call.answer.until(lambda: len(self.call.answer.messages) > 1)
        return self

    @property
    def frames(self) -> list[tuple[str | None, str | None, Json | None]]:
        found = []
        for block in self.call.answer.body.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
            if fields:
                data = json.loads(fields["data"]) if "data" in fields else None
                found.append((fields.get("id"), fields.get("event"), data))
        return found

    @property
    def named(self) -> list[str]:
        return [event for _, event, data in self.frames if event is not None and data is not None]

    @property
    def last_id(self) -> str:
        return [id_ for id_, _, _ in self.frames if id_][-1]

    async def until(self, count: int) -> list[tuple[str | None, str | None, Json | None]]:
        """Wait for so many frames with data; they are the answer."""
        await self.call.answer.until(lambda: len(self.with_data) >= count)
        return self.with_data

    @property
    def with_data(self) -> list[tuple[str | None, str | None, Json | None]]:
        return [frame for frame in self.frames if frame[2] is not None]

    async def leave(self) -> None:
        self.call.leave()
        assert self.running is not None
        await self.running


async def change(served: Served, name: str = "News", key: str | None = None) -> str:
    """A server that is registered: one event, for it is switched off."""
    body = {"name": name, "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/mcp"}, "enabled": False}
    made = await served.call("POST", "/api/servers", body, key=key)
    assert made.status_code == 201, made.text
    uuid: str = made.json()["uuid"]
    return uuid


async def call_tool(served: Served, key: str | None = None) -> None:
    path = f"/api/servers/{served.demo_id}/tools/echo/execute"
    assert (await served.call("POST", path, {"parameters": {"text": "x"}}, key=key)).status_code == 200


@pytest.fixture
async def key(served: Served) -> str:
    """An organisation of its own: nothing else happens in its log."""
    return await served.key_of(await served.organization("Listening"))


@pytest.mark.requirement("events.stream", "events.mirror")
async def test_every_event_comes_with_its_name_and_once_more_without(served: Served, key: str) -> None:
    listener = await Listener(served, key=key).opened()
    headers = listener.call.answer.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8" and headers["referrer-policy"] == "no-referrer"
    assert [(event, data) for _, event, data in listener.frames] == [(None, None)], "a bare id comes first"
    server = await change(served, key=key)
    first, second = await listener.until(2)
    assert first[:2] == (first[0], "server.created") and second[:2] == (f"{first[0]}.m", None)
    assert first[2] == second[2] and first[2] is not None
    assert set(first[2]) == {"id", "event", "type", "timestamp", "organization_id", "data"}
    assert first[2]["id"] == "evt_" + str(first[0]).replace("-", "_")
    assert first[2]["data"]["server_uuid"] == server and first[2]["data"]["mcp_id"].startswith("mcp_")
    await listener.leave()
    assert not served.app.hub.live.watched and served.app.hub.streams._feeds == {}


@pytest.mark.requirement("events.stream")
async def test_who_comes_back_has_missed_nothing_and_hears_nothing_twice(served: Served, key: str) -> None:
    listener = await Listener(served, "mirror=0", key=key).opened()
    await change(served, "1", key)
    await listener.until(1)
    await listener.leave()
    for number in "23":
        await change(served, number, key)
    back = await Listener(served, "mirror=0", key=key, last_id=listener.last_id).opened()
    await change(served, "4", key)
    names = [data["data"]["name"] for _, _, data in await back.until(3) if data is not None]
    assert names == ["2", "3", "4"]
    await back.leave()
    by_query = await Listener(served, f"mirror=0&last_event_id={listener.last_id}", key=key).opened()
    assert [data["data"]["name"] for _, _, data in await by_query.until(3) if data is not None] == names
    await by_query.leave()


@pytest.mark.requirement("events.mirror")
async def test_a_cut_between_the_two_frames_of_an_event_loses_neither(served: Served, key: str) -> None:
    listener = await Listener(served, key=key).opened()
    await change(served, "1", key)
    (named, _, body), (mirrored, _, _) = await listener.until(2)
    await listener.leave()
    half = await Listener(served, key=key, last_id=str(named)).opened()
    assert (await half.until(1))[0] == (mirrored, None, body)
    await change(served, "2", key)
    assert [event for _, event, _ in await half.until(3)] == [None, "server.created", None]
    await half.leave()
    whole = await Listener(served, key=key, last_id=str(mirrored)).opened()
    assert [event for _, event, _ in await whole.until(2)] == ["server.created", None]
    await whole.leave()


@pytest.mark.requirement("events.stream")
async def test_a_long_absence_is_made_up_for_from_the_log_in_order(served: Served, key: str) -> None:
    listener = await Listener(served, "mirror=0", key=key).opened()
    begun = listener.last_id
    await listener.leave()
    hub, organization = served.app.hub, (await served.call("GET", "/api/organizations", key=key)).json()["organizations"][0]
    entry = hub.keys.find(key)
    assert entry is not None and organization["id"]
    async with served.database.unit_of_work() as uow:
        for number in range(1_700):
            uow.emit("project.created", space_id=entry.caller.space_id, data={"project_uuid": str(number), "name": str(number)})
    back = await Listener(served, "mirror=0", key=key, last_id=begun).opened()
    await change(served, "last", key)
    frames = await back.until(1_701)
    assert [data["data"]["name"] for _, _, data in frames if data is not None] == [*map(str, range(1_700)), "last"]
    await back.leave()


@pytest.mark.requirement("events.gap")
async def test_what_is_not_kept_any_more_is_told_as_a_gap(served: Served, key: str) -> None:
    listener = await Listener(served, key=key).opened()
    epoch, _, seq = listener.last_id.removesuffix(".m").partition("-")
    await listener.leave()
    await change(served, "kept", key)
    entry = served.app.hub.keys.find(key)
    assert entry is not None
    async with served.database.unit_of_work() as uow:
        await uow.execute(update(space).where(space.c.id == entry.caller.space_id).values(pruned_seq=int(seq) + 1))
    back = await Listener(served, key=key, last_id=f"{epoch}-{seq}.m").opened()
    await change(served, "after", key)
    frames = await back.until(3)
    missed = {"missed_from": f"{epoch}-{seq}", "missed_to": f"{epoch}-{int(seq) + 1}", "reason": "retention"}
    assert frames[0] == (None, "stream.gap", missed)
    await back.leave()
    other = await Listener(served, key=key, last_id=f"00000000-{seq}").opened()
    [(id_, event, data)] = await other.until(1)
    assert (id_, event, data and data["reason"]) == (None, "stream.gap", "unknown_position")
    assert data is not None and data["missed_from"] is None and data["missed_to"] == other.last_id.removesuffix(".m")
    await other.leave()


@pytest.mark.requirement("events.filters")
async def test_the_stream_of_servers_and_filters_let_through_what_was_asked_for(served: Served, key: str) -> None:
    of_servers = await Listener(served, "mirror=0", key=key, path="/api/servers/events").opened()
    by_alias = await Listener(served, "mirror=0&type=api_key.*,project.created", key=key).opened()
    server = await change(served, "1", key)
    of_one = await Listener(served, f"mirror=0&server={server}", key=key).opened()
    assert (await served.call("POST", "/api/projects", {"name": "P"}, key=key)).status_code == 201
    assert (await served.call("POST", "/api/auth/keys", {"name": "K"}, key=key)).status_code == 201
    other = await change(served, "2", key)
    assert (await served.call("DELETE", f"/api/servers/{server}", key=key)).status_code == 204
    await of_servers.until(3)
    assert of_servers.named == ["server.created", "server.created", "server.deleted"]
    await by_alias.until(2)
    assert by_alias.named == ["project.created", "key.created"], "the project's own profile was not asked for"
    assert [data and data["data"]["server_uuid"] for _, _, data in await of_one.until(1)] == [server] != [other]
    for listener in (of_servers, by_alias, of_one):
        await listener.leave()


@pytest.mark.requirement("events.who-hears")
async def test_a_key_hears_of_its_servers_and_of_what_its_scopes_reach(served: Served, key: str) -> None:
    mine, other = await change(served, "mine", key), await change(served, "other", key)
    made = await served.call("POST", "/api/auth/keys", {"name": "listed", "servers": [mine], "scopes": ["read:events"]}, key=key)
    plain = await served.call("POST", "/api/auth/keys", {"name": "plain", "scopes": ["read:events"]}, key=key)
    listed = await Listener(served, "mirror=0", key=made.json()["key"]).opened()
    without = await Listener(served, "mirror=0", key=plain.json()["key"]).opened()
    stranger = await Listener(served, "mirror=0").opened()
    await served.call("POST", "/api/auth/keys", {"name": "K"}, key=key)
    for server in (other, mine):
        assert (await served.call("PATCH", f"/api/servers/{server}", {"name": "renamed"}, key=key)).status_code == 200
    assert [data and data["data"]["server_uuid"] for _, _, data in await listed.until(1)] == [mine]
    assert [event for _, event, _ in await without.until(2)] == ["server.updated", "server.updated"], "keys need read:keys"
    assert stranger.named == []
    for listener in (listed, without, stranger):
        await listener.leave()


@pytest.mark.requirement("events.ends-with-its-key")
async def test_the_stream_ends_with_its_key_and_with_the_hub(served: Served, key: str) -> None:
    made = (await served.call("POST", "/api/auth/keys", {"name": "reader"}, key=key)).json()
    mine = await Listener(served, key=made["key"]).opened()
    other = await Listener(served, key=key).opened()
    await served.call("DELETE", f"/api/auth/keys/{made['id']}", key=key)
    await mine.call.answer.until(lambda: mine.call.answer.complete)
    assert mine.with_data[-1][1:] == ("stream.closed", {"reason": "gone", "message": "API key has been revoked"})
    again = await served.call("GET", "/api/events", key=made["key"])
    assert (again.status_code, again.json()["error"]["code"]) == (410, "GONE")
    served.app.hub.streams.stop_all(Unavailable(STOPPING), resting_only=True)
    await other.call.answer.until(lambda: other.call.answer.complete)
    assert other.with_data[-1][1:] == ("stream.closed", {"reason": "stopping", "message": STOPPING})
    assert b"\n\nretry: " in other.call.answer.body, "not everybody comes back at once"


@pytest.mark.requirement("events.slow-clients")
async def test_a_client_that_takes_nothing_is_cut_and_holds_nobody_up(served: Served, key: str) -> None:
    slow, quick = Listener(served, key=key), await Listener(served, "mirror=0", key=key).opened()
    taken, go_on = slow.call.sends, asyncio.Event()

    async def sends(message: object) -> None:
        if len(slow.call.answer.messages) > 1:
            await go_on.wait()
        await taken(message)  # type: ignore[arg-type]

    slow.call.sends = sends
    await slow.opened()
    entry = served.app.hub.keys.find(key)
    assert entry is not None
    for _ in range(6):
        async with served.database.unit_of_work() as uow:
            for number in range(100):
                uow.emit("project.created", space_id=entry.caller.space_id, data={"project_uuid": str(number), "name": "x"})
    await quick.until(600)
    go_on.set()
    await slow.call.answer.until(lambda: slow.call.answer.complete)
    assert slow.named[-1] == "stream.closed" and slow.with_data[-1][2] is not None and slow.with_data[-1][2]["reason"] == "slow"
    missed = 600 - (len(slow.named) - 1)
    back = await Listener(served, "mirror=0", key=key, last_id=slow.last_id).opened()
    assert len(await back.until(missed)) == missed > 0
    for listener in (quick, back):
        await listener.leave()


@pytest.mark.requirement("events.query-token")
async def test_a_public_key_may_stand_in_the_address_of_a_stream_and_nowhere_else(served: Served, key: str) -> None:
    public = (await served.call("POST", "/api/auth/keys", {"name": "page", "kind": "public"}, key=key)).json()["key"]
    listener = await Listener(served, f"token={public}&mirror=0", key="", origin="https://page.example").opened()
    assert listener.call.answer.headers["access-control-allow-origin"] == "*"
    assert listener.call.scope["query_string"] == b"mirror=0", "whatever looks at the request later finds no key in it"
    await change(served, "1", key)
    assert len(await listener.until(1)) == 1
    await listener.leave()
    for path in ("/api/servers", "/api/event-log"):
        assert (await served.call("GET", f"{path}?token={public}", key="")).status_code == 401
    secret = (await served.call("POST", "/api/auth/keys", {"name": "server", "kind": "secret"}, key=key)).json()["key"]
    refused = await served.call("GET", f"/api/events?token={secret}", key="")
    assert (refused.status_code, refused.json()["error"]["details"]["reason"]) == (403, "secret_key_in_url")
    for wrong in ("", "nonsense", quote(public[:-1] + "x"), "at_" + "x" * 43, "tkt_" + "x" * 32):
        answer = await served.call("GET", f"/api/events?token={wrong}", key="")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHORIZED")
        assert not wrong or wrong not in answer.text
    twice = await served.call("GET", f"/api/events?token={public}&token={public}", key="")
    assert (twice.status_code, twice.json()["error"]["details"]["field"]) == (400, "token")


async def ticket_of(served: Served, key: str) -> str:
    made = await served.call("POST", "/api/events/tickets", key=key)
    assert (made.status_code, made.json()["expires_in"], made.headers["cache-control"]) == (201, 30, "no-store")
    ticket: str = made.json()["ticket"]
    return ticket


@pytest.mark.requirement("events.tickets")
async def test_a_ticket_opens_one_stream_and_that_one_again(served: Served, key: str) -> None:
    ticket = await ticket_of(served, key)
    query = f"token={ticket}&mirror=0"
    listener = await Listener(served, query, key="").opened()
    await change(served, "1", key)
    await listener.until(1)
    await listener.leave()
    assert (await served.call("GET", f"/api/events?{query}", key="")).status_code == 401, "it is spent"
    await change(served, "2", key)
    back = await Listener(served, query, key="", last_id=listener.last_id).opened()
    assert [data and data["data"]["name"] for _, _, data in await back.until(1)] == ["2"]
    await back.leave()
    epoch, _, seq = listener.last_id.partition("-")
    for last_id, other in ((f"{epoch}-{seq}", "&type=tool.*"), (f"00000000-{seq}", ""), (f"{epoch}-0", ""), (f"{epoch}-99999", "")):
        answer = await served.call("GET", f"/api/events?{query}{other}", key="", headers={"Last-Event-ID": last_id})
        assert answer.status_code == 401, "another stream, or another position than it was on"
    served.clock.advance(86_401)
    answer = await served.call("GET", f"/api/events?{query}", key="", headers={"Last-Event-ID": listener.last_id})
    assert answer.status_code == 401


@pytest.mark.requirement("events.tickets")
async def test_a_ticket_is_short_lived_and_never_more_than_its_key(served: Served, key: str) -> None:
    made = (await served.call("POST", "/api/auth/keys", {"name": "maker", "kind": "secret"}, key=key)).json()
    tickets = [await ticket_of(served, made["key"]) for _ in range(4)]
    in_browser = await Listener(served, f"token={tickets[0]}", key="", origin="https://page.example").opened()
    assert in_browser.call.answer.status == 200, "the secret key itself is in no browser"
    anywhere = await served.call("GET", "/api/servers", key=tickets[1])
    assert (anywhere.status_code, "event stream" in anywhere.json()["error"]["details"]["hint"]) == (401, True)
    served.clock.advance(31)
    assert (await served.call("GET", f"/api/events?token={tickets[2]}", key="")).status_code == 401
    last = await ticket_of(served, made["key"])
    await served.call("DELETE", f"/api/auth/keys/{made['id']}", key=key)
    await in_browser.call.answer.until(lambda: in_browser.call.answer.complete)
    assert (await served.call("GET", f"/api/events?token={last}", key="")).status_code == 410
    again = await served.call("GET", f"/api/events?token={tickets[0]}", key="", headers={"Last-Event-ID": in_browser.last_id})
    assert again.status_code == 410


@pytest.mark.requirement("events.tickets")
async def test_a_login_and_a_test_environment_have_tickets_too(served: Served) -> None:
    organization = await served.organization("People")
    person = await served.browser(organization)
    made = await served.call("POST", "/api/events/tickets", key=person, headers={"X-Plughub-Environment": "test"})
    assert made.status_code == 201
    listener = await Listener(served, f"token={made.json()['ticket']}&mirror=0", key="").opened()
    await change(served, "live", await served.key_of(organization))
    await change(served, "test", await served.key_of(organization, "test"))
    assert [data and data["data"].get("name") for _, _, data in await listener.until(2)][-1] == "test"
    assert "live" not in [data and data["data"].get("name") for _, _, data in listener.with_data]
    await served.call("POST", "/api/auth/logout", key=person)
    await listener.call.answer.until(lambda: listener.call.answer.complete)


@pytest.mark.requirement("events.heartbeat")
async def test_a_sign_of_life_says_how_far_the_log_has_gone(served: Served, key: str) -> None:
    listener, hub = Listener(served, "type=tool.executed", key=key), served.app.hub
    entry = await hub.keys.resolve(key)
    assert entry is not None
    request = Request(listener.call.scope, listener.call.incoming.get, listener.call.sends, "req_1", Waits())
    request.caller = entry.caller
    listener.running = asyncio.create_task(EventStreams(hub, heartbeat_s=0.05).open_all(request))
    await listener.call.answer.until(lambda: len(listener.call.answer.messages) > 1)
    begun = listener.last_id
    await change(served, "not for it", key)
    await listener.call.answer.until(lambda: b": keep-alive" in listener.call.answer.body and listener.last_id != begun)
    assert listener.with_data == []
    await listener.leave()


@pytest.mark.requirement("events.log")
async def test_the_log_is_read_in_pages_from_either_end(served: Served, key: str) -> None:
    for number in range(5):
        await change(served, str(number), key)

    async def read(query: str) -> Json:
        answer = await served.call("GET", f"/api/event-log?{query}", key=key)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    for order, wanted in (("newest", ["4", "3", "2", "1", "0"]), ("oldest", ["0", "1", "2", "3", "4"])):
        names, query = [], f"type=server.created&limit=2&order={order}"
        page = await read(query)
        while True:
            names += [event["data"]["name"] for event in page["events"]]
            if page["next_cursor"] is None:
                break
            page = await read(f"{query}&cursor={page['next_cursor']}")
        assert names == wanted
    page = await read("type=mcp.created&limit=1")
    assert page["retention"] == {"tool_events_days": 30, "other_events_days": None, "complete_from": None}
    await change(served, "new", key)
    [new] = (await read(f"order=oldest&cursor={page['last_event_id']}&type=server.*"))["events"]
    assert new["data"]["name"] == "new"
    at = new["timestamp"]
    assert (await read(f"until={at}&limit=100"))["events"] == [] or at
    assert [event["id"] for event in (await read(f"since={at}&type=server.created"))["events"]].count(new["id"]) == 1
    assert (await read("since=2100-01-01T00:00:00Z&order=oldest"))["events"] == []


@pytest.mark.requirement("events.log")
async def test_the_log_tells_of_tool_calls_and_filters_by_server_and_key(served: Served) -> None:
    made = (await served.call("POST", "/api/auth/keys", {"name": "caller"})).json()
    await call_tool(served, made["key"])
    query = f"/api/event-log?type=tool.*&key={made['id']}&server={served.demo_id}"
    with anyio.fail_after(5):
        while not (events := (await served.call("GET", query)).json()["events"]):
            pass
    [event] = events
    assert (event["event"], event["data"]["tool"], event["data"]["is_error"]) == ("tool.executed", "echo", False)
    assert event["data"]["key_id"] == made["id"] and event["data"]["server_uuid"] == served.demo_id
    listed = await served.key_of(await served.operator(), servers=[])
    assert (await served.call("GET", "/api/event-log", key=listed)).json()["events"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("type=server.creatd", "type"),
        ("type=" + ",".join(["*"] * 101), "type"),
        ("server=nope", "server"),
        ("key=nope", "key"),
        ("mirror=2", "mirror"),
        ("last_event_id=nope", "last_event_id"),
    ],
)
async def test_what_cannot_be_streamed_is_an_ordinary_error(lite: Served, query: str, field: str) -> None:
    answer = await lite.call("GET", f"/api/events?{query}")
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, field)
    if field not in ("mirror", "last_event_id"):
        assert (await lite.call("GET", f"/api/event-log?{query}")).json()["error"]["details"]["field"] == field
