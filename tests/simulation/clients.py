"""What clients of the hub do: each operation asks, and judges the answer by what was certain while it ran."""

import json
import random
import uuid
from collections.abc import Callable
from typing import Any

from tests.serving import META, MODERN, Json, events_of
from tests.simulation.upstreams import ASKS, TOOLS
from tests.simulation.world import Call, Fate, Key, Reply, Server, Space, Violation, World

DOORS = ("execute", "execute stream", "invoke", "invoke stream", "mcp", "mcp modern", "mcp stream", "one", "one modern stream")
# What a call may come to when the server or the limits stand against it.
FAILED = frozenset((400, 429, 499, 502, 503, 504))
KEYS, SERVERS = "/api/auth/keys", "/api/servers"


def require(condition: object, said: str, reply: Reply | None = None) -> None:
    """Raise Violation unless the condition holds."""
    if not condition:
        raise Violation(said if reply is None else f"{said}: {reply.status} {reply.body[:600]!r}")


# ---- calls


async def call_tool(
    world: World,
    space: Space,
    key: Key,
    server: Server,
    door: str,
    do: str,
    *,
    tool: str = TOOLS[0],
    timeout_s: float = 3.0,
    fate: Fate | None = None,
) -> Call:
    """One call of a tool through one door."""
    call = Call(space, key.id, server, tool, door, world.new_token(), do)
    world.calls.append(call)
    certain = [thing.certain() for thing in (key, server)]
    path, body, headers = _request(call, timeout_s)
    call.reply = await world.ask(space, "POST", path, body, key=key.secret, headers=headers, fate=fate, token=call.token)
    if call.reply.complete:
        call.result = _result(call, call.reply)
    if all(still() for still in certain) and call.reply.complete and not call.reply.struck:
        _judge(call, key, server)
    world.note(f"call {door} {do} {space.number} {server.name} -> {call.reply.status} {call.result is not None}")
    return call


async def call_asked(
    world: World,
    space: Space,
    key: Key,
    server: Server,
    *,
    everything: bool,
    comes_back: bool,
    fate: Fate | None = None,
    again: Fate | None = None,
) -> None:
    """A call of the tool that asks, by a modern client; it comes back with its answer, or does not."""
    token = world.new_token()
    path, name = ("/mcp", f"{server.slug}__{ASKS}") if everything else (f"/servers/{server.id}/mcp", ASKS)
    meta = {META + "protocolVersion": MODERN, META + "clientCapabilities": {"elicitation": {}}}
    params: Json = {"name": name, "arguments": {"token": token}, "_meta": meta}
    headers = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": "tools/call",
        "mcp-name": name,
    }
    body: Json = {"jsonrpc": "2.0", "id": token, "method": "tools/call", "params": params}
    first = await world.ask(space, "POST", path, body, key=key.secret, headers=headers, fate=fate, token=token)
    if not (first.complete and first.status == 200 and "result" in first.json and comes_back):
        world.note(f"asked {space.number} {server.name} -> {first.status}")
        return
    result = first.json["result"]
    require(result["resultType"] == "input_required", "a server that asks was answered for", first)
    responses = {name: {"action": "accept", "content": {"token": token}} for name in result["inputRequests"]}
    body["params"] = {**params, "inputResponses": responses, "requestState": result["requestState"]}
    reply = await world.ask(space, "POST", path, body, key=key.secret, headers=headers, fate=again, token=token)
    if reply.complete and reply.status == 200 and "result" in reply.json:
        require(server.behind is not None, "an answer of nobody", reply)
        text = reply.json["result"]["content"][0]["text"]
        require(text == f"{server.behind.mark} {token}", f"not the answer of {token}", reply)  # type: ignore[union-attr]
    world.note(f"asked and answered {space.number} {server.name} -> {reply.status}")


def _request(call: Call, timeout_s: float) -> tuple[str, Json, dict[str, str]]:
    arguments = {"do": call.do, "token": call.token}
    stream = {"accept": "text/event-stream"} if call.door.endswith("stream") else {}
    timeout_ms = int(timeout_s * 1000)
    if call.door.startswith("execute"):
        path = f"{SERVERS}/{call.server.id}/tools/{call.tool}/execute"
        return path, {"parameters": arguments, "timeout_ms": timeout_ms}, stream
    if call.door.startswith("invoke"):
        return "/v1/mcp/invoke", {"mcp_id": call.server.id, "tool": call.tool, "arguments": arguments, "timeout": timeout_ms}, stream
    everything = call.door.startswith("mcp")
    path = "/mcp" if everything else f"/servers/{call.server.id}/mcp"
    name = f"{call.server.slug}__{call.tool}" if everything else call.tool
    params: Json = {"name": name, "arguments": arguments, "_meta": {}}
    headers = {"accept": "application/json, text/event-stream"}
    if stream:
        params["_meta"]["progressToken"] = 7
    if "modern" in call.door:
        params["_meta"] |= {
            META + "protocolVersion": MODERN,
            META + "clientCapabilities": {},
            META + "clientInfo": {"name": "t", "version": "1"},
        }
        headers |= {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": name}
    return path, {"jsonrpc": "2.0", "id": call.token, "method": "tools/call", "params": params}, headers


def _result(call: Call, reply: Reply) -> str | None:
    """The text of the result; None when the answer is an error."""
    body = reply.body
    if "text/event-stream" in reply.headers.get("content-type", ""):
        frames = events_of(body)
        require(frames, "a stream without a frame", reply)
        name, last = frames[-1]
        if name == "error":
            return None
        body = json.dumps(last).encode()
    if reply.status != 200:
        return None
    found = json.loads(body)
    if call.door.startswith("execute"):
        return str(found["result"])
    if call.door.startswith("invoke"):
        return str(found["data"]["result"])
    require(found["id"] == call.token, "the answer of another request", reply)
    return str(found["result"]["content"][0]["text"]) if "result" in found else None


def _judge(call: Call, key: Key, server: Server) -> None:
    """Key and server stood still while the call ran: what must, and what must not, have come of it."""
    reply = call.reply
    assert reply is not None and server.behind is not None
    refused = refusal(key, v1=call.door.startswith("invoke"))
    if refused is not None:
        require(reply.status == refused, f"a {key.status} key was answered", reply)
        return
    require(reply.status not in (401, 410), f"an {key.status} key was refused", reply)
    if call.result is not None:
        require(not server.deleted and server.enabled, "a server answered that is deleted or disabled", reply)
        require(key.servers is None or server.id in key.servers, "a server answered that the key may not use", reply)
        require(call.result == f"{server.behind.mark} {call.token}", f"not the answer of {call.token} {server.behind.mark}", reply)
        return
    if server.deleted:
        expected = {404}
    elif key.servers is not None and server.id not in key.servers:
        expected = {403}
    elif not server.enabled:
        expected = {409}
    else:
        expected = set(FAILED)
    if call.door.startswith("mcp"):  # a tool that cannot be seen has an error of JSON-RPC, whatever the reason
        expected |= {200, 404, 400, 409}
    elif call.door.startswith("one"):
        # Clients of 2026-07-28 are told of wrong parameters with a 400.
        expected |= {200, 400} if not server.deleted else set()
    elif "stream" in call.door and 502 in expected:
        expected |= {200}
    require(reply.status in {*expected, 429}, f"expected {sorted(expected)}", reply)


def refusal(key: Key, *, v1: bool = False) -> int | None:
    """The status with which a key in this state is refused everywhere."""
    if key.status == "revoked":
        return 401 if v1 else 410
    return 403 if key.status == "suspended" else None


# ---- changes


async def create_server(world: World, space: Space, rng: random.Random, fate: Fate | None = None) -> None:
    """Register a running upstream."""
    behind = await world.new_upstream(space, rng.choice(("legacy", "modern")), sessions=rng.random() < 0.5)
    name = behind.mark
    body = {"name": name, "type": "STREAMABLE_HTTP", "config": {"url": behind.server.url, "headers": {"X-Own": f"HIDDEN-{name}"}}}
    space.doubtful.add(name)

    def heard(reply: Reply) -> None:
        if reply.status == 201:
            world.acknowledged.append((space.id, "server.created", reply.json["uuid"]))

    reply = await world.ask(space, "POST", SERVERS, body, fate=fate, heard=heard)
    found = reply.json if reply.complete and reply.status == 201 else None
    if found is None:
        require(not reply.certain or reply.status == 429, "a server was not created", reply)
        found = await _find(world, space, f"{SERVERS}?limit=100", "servers", name)
    space.doubtful.discard(name)
    if found is not None:
        require(found["name"] == name, "another name than was asked for")
        space.servers.append(Server(found["uuid"], name=name, slug=found["slug"], behind=behind))
    world.note(f"create server {name} -> {reply.status} {found is not None}")


async def create_key(world: World, space: Space, rng: random.Random, fate: Fate | None = None) -> None:
    """A key for all servers or for some. A key whose answer was lost is lost: nobody knows its secret."""
    servers = (
        None if rng.random() < 0.5 else frozenset(server.id for server in space.live_servers if not server.changing and rng.random() < 0.5)
    )
    name = f"key-{world.new_token()[6:]}"

    def heard(reply: Reply) -> None:
        if reply.status == 201:
            from_public = reply.json["id"]
            world.acknowledged.append((space.id, "key.created", from_public))

    body = {"name": name, "servers": "*" if servers is None else sorted(servers)}
    standing = [server.certain() for server in space.servers if servers is not None and server.id in servers]
    reply = await world.ask(space, "POST", KEYS, body, fate=fate, heard=heard)
    if reply.complete and reply.status == 201:
        made = reply.json
        space.keys.append(Key(made["id"], secret=made["key"], name=name, servers=servers))
    else:
        require(not reply.certain or reply.status == 429 or not all(still() for still in standing), "a key was not created", reply)
    world.note(f"create key {space.number} {name} -> {reply.status}")


async def change_server(world: World, space: Space, server: Server, wanted: Json, fate: Fate | None = None) -> None:
    """PATCH; `wanted` holds name or enabled. Cut off, it is done wholly or not at all."""
    before = {name: getattr(server, name) for name in wanted}
    heard = _acknowledge(world, space, "server.updated", server.id)
    await _change(world, space, server, ("PATCH", f"{SERVERS}/{server.id}", wanted, 200), before, fate, heard)


async def change_key(world: World, space: Space, key: Key, wanted: Json, fate: Fate | None = None) -> None:
    """PATCH of status or servers."""
    before = {"status": key.status, "servers": key.servers}
    name = "key.suspended" if wanted.get("status") == "suspended" else "key.updated"
    await _change(world, space, key, ("PATCH", f"{KEYS}/{key.id}", wanted, 200), before, fate, _acknowledge(world, space, name, key.id))


async def delete_server(world: World, space: Space, server: Server, fate: Fate | None = None) -> None:
    """Remove it for good."""
    heard = _acknowledge(world, space, "server.deleted", server.id)
    await _change(world, space, server, ("DELETE", f"{SERVERS}/{server.id}", None, 204), {"deleted": False}, fate, heard)


async def revoke_key(world: World, space: Space, key: Key, fate: Fate | None = None) -> None:
    """From the next request on it is refused."""
    heard = _acknowledge(world, space, "key.revoked", key.id)
    await _change(world, space, key, ("DELETE", f"{KEYS}/{key.id}", None, 200), {"status": key.status}, fate, heard)


async def _change(
    world: World,
    space: Space,
    thing: Server | Key,
    request: tuple[str, str, Any, int],
    before: Json,
    fate: Fate | None,
    heard: Callable[[Reply], None],
) -> None:
    method, path, body, good = request
    after = (
        {"deleted": True}
        if method == "DELETE" and isinstance(thing, Server)
        else {"status": "revoked"}
        if method == "DELETE"
        else dict(body)
    )
    if "servers" in after:
        after["servers"] = None if after["servers"] == "*" else frozenset(after["servers"])
    thing.begin()
    try:
        reply = await world.ask(space, method, path, body, fate=fate, heard=heard)
        if reply.complete and reply.status == good:
            state = after
        elif reply.certain:
            require(reply.status == 429, "a change was refused", reply)
            state = before
        else:
            state = await _state(world, space, thing, path)
            old, new = ({**state, **part} for part in (before, after))
            require(state in (old, new), f"half a change: {before} -> {after}: {state}")
        for name, value in state.items():
            if hasattr(thing, name):
                setattr(thing, name, value)
    finally:
        thing.end()
    world.note(f"{method} {type(thing).__name__} {space.number} {sorted(after)} -> {reply.status}")


def _acknowledge(world: World, space: Space, what: str, id_: str) -> Callable[[Reply], None]:
    def heard(reply: Reply) -> None:
        if reply.status is not None and reply.status < 300:
            world.acknowledged.append((space.id, what, id_))

    return heard


async def _state(world: World, space: Space, thing: Server | Key, path: str) -> Json:
    """What became of a change whose answer was lost."""
    reply = await _surely(world, space, path)
    if isinstance(thing, Server):
        if reply.status == 404:
            return {"deleted": True}
        found = reply.json
        return {"deleted": False, "name": found["name"], "enabled": found["enabled"]}
    found = reply.json
    return {"status": found["status"], "servers": None if found["servers"] == "*" else frozenset(found["servers"])}


async def _find(world: World, space: Space, path: str, plural: str, name: str) -> Json | None:
    reply = await _surely(world, space, path)
    return next((item for item in reply.json[plural] if item["name"] == name), None)


async def _surely(world: World, space: Space, path: str) -> Reply:
    """A GET after everything under way has ended, again when the limits stand against it."""
    while True:
        await world.loop.pass_time(1.0)
        reply = await world.ask(space, "GET", path)
        if reply.status != 429:
            return reply
        await world.loop.pass_time(int(reply.headers["retry-after"]))


# ---- looking


async def list_servers(world: World, space: Space, key: Key, fate: Fate | None = None) -> None:
    """Everything that was acknowledged is in the list, nothing that is gone, nothing of others."""
    certain = key.certain()
    known = [(server, server.certain()) for server in space.servers]
    doubtful = set(space.doubtful)
    reply = await world.ask(space, "GET", f"{SERVERS}?limit=100", key=key.secret, fate=fate)
    if not (reply.complete and certain()) or reply.struck or reply.status == 429:
        return
    refused = refusal(key)
    require(reply.status == (refused or 200), f"a {key.status} key listed servers", reply)
    if refused:
        return
    listed = {item["uuid"]: item for item in reply.json["servers"]}
    for server, still in known:
        if still():
            wanted = not server.deleted and (key.servers is None or server.id in key.servers)
            require((server.id in listed) is wanted, f"server {server.name} wanted: {wanted}", reply)
            if wanted:
                require(listed[server.id]["name"] == server.name, f"not {server.name}", reply)
    ids = {server.id for server in space.servers}
    for id_, item in listed.items():
        require(id_ in ids or item["name"] in doubtful | space.doubtful, f"nobody made {item['name']}", reply)
    world.note(f"list servers {space.number} -> {len(listed)}")


async def list_keys(world: World, space: Space, fate: Fate | None = None) -> None:
    """Every key that was acknowledged, in its state, and no secret."""
    known = [(key, key.certain()) for key in space.keys]
    reply = await world.ask(space, "GET", f"{KEYS}?limit=100", fate=fate)
    if not reply.complete or reply.struck or reply.status == 429:
        return
    require(reply.status == 200, "no list of keys", reply)
    listed = {item["id"]: item for item in reply.json["keys"]}
    require(reply.json["total"] == len(listed), "more keys than the page", reply)
    for key, still in known:
        require(key.id in listed, f"key {key.name} is not listed", reply)
        if still():
            require(listed[key.id]["status"] == key.status, f"key {key.name} is {key.status}", reply)
    world.note(f"list keys {space.number} -> {len(listed)}")


async def list_tools(world: World, space: Space, key: Key, server: Server | None, fate: Fate | None = None) -> None:
    """Of one server over REST, or of all of them over MCP: only what the key may use."""
    if server is not None:
        reply = await world.ask(space, "GET", f"{SERVERS}/{server.id}/tools", key=key.secret, fate=fate)
        world.note(f"tools {space.number} {server.name} -> {reply.status}")
        return
    certain, slugs = key.certain(), {item.slug for item in space.servers if not (item.deleted and not item.changing)}
    doubtful = bool(space.doubtful)
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    accept = {"accept": "application/json, text/event-stream"}
    reply = await world.ask(space, "POST", "/mcp", body, key=key.secret, headers=accept, fate=fate)
    if reply.complete and certain() and refusal(key) is None and "result" in reply.json:
        seen = {tool["name"].partition("__")[0] for tool in reply.json["result"]["tools"]}
        later = {item.slug for item in space.servers}
        require(doubtful or space.doubtful or seen <= slugs | later, f"tools of {seen - slugs}", reply)
    world.note(f"tools of all {space.number} -> {reply.status}")


async def trespass(world: World, space: Space, key: Key, other: Space, rng: random.Random) -> None:
    """Something of another tenant or environment: answered like something that never was, and unchanged."""
    foreign = rng.choice([server.id for server in other.servers] or [str(uuid.uuid4())])
    key_id = rng.choice([held.id for held in other.keys] or ["key_0000000000000000000000"])
    missing, missing_key = str(uuid.UUID(int=rng.getrandbits(128), version=4)), "key_00000000000000000000ab"
    arguments: Json = {"parameters": {"do": "answer", "token": "TOKEN-0"}}
    ping = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": TOOLS[0], "arguments": arguments["parameters"]}}
    invoke = {"mcp_id": "{}", "tool": TOOLS[0], "arguments": arguments["parameters"]}
    accept = {"accept": "application/json, text/event-stream"}
    method, path, body, headers = rng.choice(
        [
            ("GET", SERVERS + "/{}", None, {}),
            ("PATCH", SERVERS + "/{}", {"name": "taken"}, {}),
            ("DELETE", SERVERS + "/{}", None, {}),
            ("GET", SERVERS + "/{}/tools", None, {}),
            ("GET", SERVERS + "/{}/logs", None, {}),
            ("POST", SERVERS + "/{}/tools/" + TOOLS[0] + "/execute", arguments, {}),
            ("POST", SERVERS + "/{}/tools/" + TOOLS[0] + "/execute", arguments, {"accept": "text/event-stream"}),
            ("POST", "/v1/mcp/invoke", invoke, {}),
            ("POST", "/servers/{}/mcp", ping, accept),
            ("POST", KEYS, {"name": "wide", "servers": ["{}"]}, {}),
            ("GET", KEYS + "/[]", None, {}),
            ("PATCH", KEYS + "/[]", {"status": "suspended"}, {}),
            ("DELETE", KEYS + "/[]", None, {}),
        ]
    )
    admin = KEYS in path
    certain = key.certain()

    async def at(server_id: str, key_id: str) -> Reply:
        filled = json.loads(json.dumps(body).replace("{}", server_id)) if body is not None and "{}" in json.dumps(body) else body
        where = path.replace("{}", server_id).replace("[]", key_id)
        return await world.ask(space, method, where, filled, key=space.admin if admin else key.secret, headers=headers)

    one, two = await at(foreign, key_id), await at(missing, missing_key)
    if 429 in (one.status, two.status) or not (admin or certain()):
        return
    shown = [_comparable(reply, ids) for reply, ids in ((one, (foreign, key_id)), (two, (missing, missing_key)))]
    require(shown[0] == shown[1], f"{method} {path}: {shown[0]} is not {shown[1]}")
    require(one.status is not None and one.status >= 400, "something of another tenant was answered", one)
    world.note(f"trespass {method} {path} -> {one.status}")


def _comparable(reply: Reply, ids: tuple[str, str]) -> tuple[int | None, str]:
    """Without what may differ: ids, the request's own id, the limit counters."""
    moving = ("x-request-id", "content-length")
    kept = {name: value for name, value in reply.headers.items() if "ratelimit" not in name and name not in moving}
    text = reply.body.decode() + json.dumps(kept)
    for name, id_ in (("R", reply.headers["x-request-id"]), ("I", ids[0]), ("I", ids[1])):
        text = text.replace(id_, name)
    return reply.status, text
