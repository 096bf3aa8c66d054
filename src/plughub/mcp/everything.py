"""`/mcp`: what every server that the caller may use offers, and the hub itself, at one door, under names that cannot collide."""

from collections.abc import Iterable, Sequence

import msgspec

from plughub import __version__
from plughub.gateway.exchange import Exchanged
from plughub.gateway.hub import Hub
from plughub.gateway.lists import KINDS, PROMPTS, TOOLS, Item, Kind
from plughub.gateway.names import aggregate_uri, split_name, split_uri
from plughub.kit.caller import Caller
from plughub.kit.errors import InvalidParams, MethodNotFound, ToolNotFound
from plughub.mcp import own
from plughub.mcp.conversation import Conversation
from plughub.mcp.views import call_of, name_in, run_tool
from plughub.protocol.envelope import object_of, text_of
from plughub.upstream.target import Answer, Facts, RawJson, Target

FAILURES_META = "plughub/failures"
_KIND_OF = {kind.method: kind for kind in KINDS}
_NAMED: dict[str, tuple[Kind, str]] = {"tools/call": (TOOLS, "tool"), "prompts/get": (PROMPTS, "prompt")}
_ONE_SERVERS = ("tools/call", "prompts/get", "resources/read", "completion/complete")
_OWN_TOOLS = frozenset((own.SEARCH, own.GET))
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
CAPABILITIES = (
    b'{"tools":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true},"prompts":{"listChanged":true},'
    b'"completions":{},"logging":{}}'
)


class Everything:
    """All servers of the caller. Lists come in one page; servers that failed are named in `_meta`."""

    door = ""
    one: str | None = None
    grows = True

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    async def facts(self, talk: Conversation) -> Facts:
        """The hub's own."""
        return hub_facts(era_modern=talk.message.modern)

    def forwards(self, method: str) -> bool:
        """The methods that can be put together from several servers, or belong to one that is named."""
        return method in _KIND_OF or method in _ONE_SERVERS

    async def ask(self, talk: Conversation) -> Exchanged:
        """The lists of all servers, or the answer of the one that is named."""
        method = talk.message.method
        if method in _KIND_OF:
            return await self._list(talk, _KIND_OF[method])
        if method in _NAMED:
            return await self._named(talk)
        if method == "resources/read":
            return await self._read(talk)
        if method == "completion/complete":
            return await self._complete(talk)
        raise MethodNotFound(f"Method not found: {method[:100]}")

    async def targets(self, talk: Conversation) -> Sequence[Target]:
        """The servers behind this door."""
        return await self.hub.servers.list_visible(talk.caller)

    async def _find(self, talk: Conversation, slug: str) -> Target | None:
        """The server of that slug, if it is behind this door."""
        return await self.hub.servers.find_slug(talk.caller, slug)

    def _shown(self, kind: Kind, target: Target, items: Sequence[Item]) -> Sequence[Item]:
        """What this door shows of a server's items."""
        return items

    async def _resolve(self, talk: Conversation, kind: Kind, target: Target, tail: str, whole: str) -> str:
        """The server's own name of what this door shows as `whole`. Raises ToolNotFound."""
        return await self.hub.catalog.resolve(kind, talk.caller, target, tail, whole)

    async def server_ids(self, caller: Caller) -> Iterable[str]:
        """All that the caller may use."""
        return [target.server_id for target in await self.hub.servers.list_visible(caller)]

    async def resource(self, talk: Conversation, uri: str) -> tuple[Target, str] | None:
        """By the server that the URI names, else by the lists."""
        target, own_uri = await self._own_uri(talk, uri)
        return None if target is None else (target, own_uri)

    def outward(self, slug: str, uri: str) -> str:
        """Behind the name of its server."""
        return aggregate_uri(slug, uri)

    async def _list(self, talk: Conversation, kind: Kind) -> Exchanged:
        """All items in one page, the hub's own last; when nothing could be had because servers failed, that is the error."""
        items, failures = await self.hub.catalog.aggregated(kind, talk.caller, await self.targets(talk), self._shown)
        items += await own.items(self.hub, talk.caller, kind)
        parts: dict[str, RawJson] = {kind.member: b"[" + b",".join(items) + b"]"}
        if failures:
            parts["_meta"] = msgspec.json.encode({FAILURES_META: [failure.shown() for failure in failures]})
        # As from the other era than the client's: what either era demands is added or taken away item by item.
        return Exchanged(Answer(result=object_of(parts)), hub_facts(era_modern=not talk.message.modern), 0)

    async def _named(self, talk: Conversation) -> Exchanged:
        """The tool or prompt of the server that its name begins with."""
        kind, what = _NAMED[talk.message.method]
        whole = name_in(talk)
        if kind is TOOLS and whole in _OWN_TOOLS and await own.offered(self.hub, talk.caller):
            talk.request.tool = whole
            return _of_the_hub(await own.call(self.hub, talk.caller, whole, talk.message.params.get("arguments", b"{}")))
        target, name = await self._own_name(talk, kind, what, whole)
        params = _params(talk) | {"name": msgspec.json.encode(name)}
        if kind is TOOLS:
            talk.request.server_id = target.server_id
            return await run_tool(self.hub, talk, target, call_of(self.hub, talk, target, name, params))
        return await self._exchange(talk, target, name, params)

    async def _own_name(self, talk: Conversation, kind: Kind, what: str, whole: str) -> tuple[Target, str]:
        split = split_name(whole)
        target = await self._find(talk, split[0]) if split is not None else None
        if split is None or target is None:
            raise ToolNotFound(f"Unknown {what}: {whole[:200]}", tool=whole[:200])
        return target, await self._resolve(talk, kind, target, split[1], whole)

    async def _read(self, talk: Conversation) -> Exchanged:
        """The resource of the server that its URI names; a URI as it stands in a tool's result is looked for in all lists."""
        uri = name_in(talk)
        if uri.startswith(own.URI) and (answer := await own.read(self.hub, talk.caller, uri)) is not None:
            return _of_the_hub(answer)
        target, own_uri = await self._own_uri(talk, uri)
        if target is None:
            code = -32602 if talk.message.modern else -32002
            error = {"code": code, "message": "Resource not found", "data": {"uri": uri[:2000]}}
            return Exchanged(Answer(error=msgspec.json.encode(error)), hub_facts(era_modern=talk.message.modern), 0)
        params = _params(talk) | {"uri": msgspec.json.encode(own_uri)}
        return await self._exchange(talk, target, own_uri, params)

    async def _own_uri(self, talk: Conversation, uri: str) -> tuple[Target | None, str]:
        split = split_uri(uri)
        if split is not None:
            return await self._find(talk, split[0]), split[1]
        owners = await self.hub.catalog.find_owner(talk.caller, await self.targets(talk), uri)
        if len(owners) > 1:
            names = ", ".join(aggregate_uri(owner.slug, uri) for owner in owners)
            raise InvalidParams(f"Several servers have a resource of that URI; name one: {names[:1000]}")
        return (owners[0] if owners else None), uri

    async def _complete(self, talk: Conversation) -> Exchanged:
        """Completion of an argument of a prompt or of a template: its server's to answer."""
        try:
            ref: dict[str, RawJson] = dict(_members.decode(talk.message.params.get("ref", b"null")))
        except msgspec.DecodeError as error:
            raise InvalidParams("params.ref must be an object") from error
        if "name" in ref:
            target, name = await self._own_name(talk, PROMPTS, "prompt", text_of(ref["name"], "params.ref.name"))
            ref["name"] = msgspec.json.encode(name)
        else:
            uri = text_of(ref.get("uri", b"null"), "params.ref.uri")
            found, own_uri = await self._own_uri(talk, uri)
            if found is None:
                raise InvalidParams(f"Unknown resource: {uri[:200]}")
            target, ref["uri"] = found, msgspec.json.encode(own_uri)
        params = _params(talk) | {"ref": object_of(ref)}
        return await self._exchange(talk, target, None, params)

    async def _exchange(self, talk: Conversation, target: Target, name: str | None, params: dict[str, RawJson]) -> Exchanged:
        talk.request.server_id = target.server_id
        return await self.hub.exchange.exchange(talk.caller, target, call_of(self.hub, talk, target, name, params))


def hub_facts(era_modern: bool) -> Facts:
    """What the hub says of itself at `/mcp`, in the client's own era."""
    info = msgspec.json.encode({"name": "plughub", "title": "Plughub", "version": __version__})
    return Facts("modern" if era_modern else "legacy", "", CAPABILITIES, info)


def _of_the_hub(answer: Answer) -> Exchanged:
    """As from a server of an older revision: what 2026-07-28 demands is added for its clients."""
    return Exchanged(answer, hub_facts(era_modern=False), 0)


def _params(talk: Conversation) -> dict[str, RawJson]:
    return {key: value for key, value in talk.message.params.items() if key != "_meta"}
