"""What a hub has, as far as a file can speak of it; and the same as a file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from plughub.cli.exits import ExitCode, Failure
from plughub.cli.hub_file.form import VERSION, escaped
from plughub.cli.servers import every_server
from plughub.cli.session import Session

Json = dict[str, Any]
_PAGE = 100
_CONFIG = ("command", "args", "url", "call_timeout_ms", "start_timeout_ms")
_KEY_FIELDS = ("description", "kind", "scopes", "expires_at", "allowed_ips", "labels", "rate_limit", "status")
_HOOK_FIELDS = ("events", "active", "ordered", "description", "rate_per_minute")


@dataclass(slots=True)
class State:
    """Everything by its name in the file: projects and keys by name (several may share one), profiles and servers by slug, webhooks in
    a list. A list that the hub has no route for is None."""

    projects: dict[str, list[Json]] = field(default_factory=dict)
    profiles: dict[str, Json] = field(default_factory=dict)
    servers: dict[str, Json] = field(default_factory=dict)
    keys: dict[str, list[Json]] = field(default_factory=dict)
    webhooks: list[Json] | None = None
    collections: dict[str, list[Json]] | None = None

    def slug_of(self, server_uuid: str) -> str | None:
        """The slug of a server."""
        return next((slug for slug, server in self.servers.items() if server["uuid"] == server_uuid), None)


def read_state(session: Session, sections: Iterable[str]) -> State:
    """What the hub has of these sections; servers, profiles and projects always, for everything else speaks of them. Raises Failure."""
    state = State()
    state.projects = _by_name(_all(session, "/api/projects", "projects"))
    state.profiles = {one["slug"]: one for one in _all(session, "/api/profiles", "profiles")}
    state.servers = {one["slug"]: one for one in every_server(session)}
    if "keys" in sections:
        state.keys = _by_name(key for key in _all(session, "/api/auth/keys", "keys") if key["status"] not in ("revoked", "expired"))
    if "webhooks" in sections and (hooks := _if_there(session, "/api/webhooks", "webhooks")) is not None:
        state.webhooks = [hook for hook in hooks if hook["format"] == "webhook"]
    if "collections" in sections and (found := _if_there(session, "/api/collections", "collections")) is not None:
        state.collections = _by_name(found)
    return state


def _all(session: Session, path: str, noun: str) -> list[Json]:
    found: list[Json] = []
    total = 1
    while len(found) < total:
        page = session.ask("GET", path, query={"limit": _PAGE, "offset": len(found)})
        found, total = found + page[noun], page["total"] if page[noun] else 0
    return found


def _if_there(session: Session, path: str, noun: str) -> list[Json] | None:
    try:
        return _all(session, path, noun)
    except Failure as failure:
        if failure.code == ExitCode.NOT_FOUND:
            return None
        raise


def _by_name(found: Iterable[Json]) -> dict[str, list[Json]]:
    named: dict[str, list[Json]] = {}
    for one in found:
        named.setdefault(one["name"], []).append(one)
    return named


def written(state: State, client_file: Mapping[str, Any]) -> Json:
    """The file of a hub. `client_file`: its servers as an export for clients has them, with a placeholder for every secret."""
    profile_names = {profile["uuid"]: slug for slug, profile in state.profiles.items()}
    projects = {one["uuid"]: name for name, found in state.projects.items() for one in found}
    document: Json = {
        "version": VERSION,
        "projects": {
            name: {**_described(one), "profile": profile_names[one["default_profile_uuid"]]}
            for name, found in state.projects.items()
            for one in found
            if one["default_profile_uuid"] in profile_names
        },
        "profiles": {slug: _profile(one, projects) for slug, one in state.profiles.items()},
        "servers": {slug: _server(one, client_file["mcpServers"][slug], profile_names) for slug, one in state.servers.items()},
        "keys": {name: _key(one, state) for name, found in state.keys.items() for one in found},
    }
    if state.collections:
        document["collections"] = {name: _collection(one, state) for name, found in state.collections.items() for one in found}
    if state.webhooks:
        document["webhooks"] = _hooks(state.webhooks)
    return document


def _described(one: Json) -> Json:
    return {"description": escaped(one["description"])} if one["description"] else {}


def _profile(one: Json, projects: Mapping[str, str]) -> Json:
    members = {}
    for member in one["servers"]:
        said: Json = {} if member["enabled"] else {"enabled": False}
        tools = {
            name: {word: escaped(v) if isinstance(v, str) else v for word, v in tool.items()} for name, tool in member["tools"].items()
        }
        if tools:
            said["tools"] = {name: {word: v for word, v in tool.items() if v is not None} for name, tool in tools.items()}
        if said or not member["home"]:
            members[member["slug"]] = said
    found = {"name": escaped(one["name"]), **_described(one), "project": escaped(projects[one["project_uuid"]])}
    return {**found, **({"servers": members} if members else {})}


def _server(one: Json, exported: Mapping[str, Any], profiles: Mapping[str, str]) -> Json:
    config = one["config"]
    found: Json = {"name": escaped(one["name"]), "type": one["type"], **_described(one)}
    if not one["enabled"]:
        found["enabled"] = False
    if one["profile_uuid"] in profiles:
        found["profile"] = profiles[one["profile_uuid"]]
    for name in _CONFIG:
        if config.get(name) not in (None, []):
            found[name] = [escaped(text) for text in config[name]] if name == "args" else _as_text(config[name])
    if "url" in config:
        found["url"] = exported["url"]
    for name in ("env", "headers"):
        if config.get(name):
            found[name] = dict(exported[name])
    if config.get("secret_args"):
        found["secret_args"] = exported["args"][len(config["args"]) :]
    return found


def _as_text(value: Any) -> Any:
    return escaped(value) if isinstance(value, str) else value


def _key(one: Json, state: State) -> Json:
    found = {name: one[name] for name in _KEY_FIELDS if one[name] not in (None, "", {})}
    servers = one["servers"]
    slugs = "all" if servers == "*" else [slug for uuid in servers if (slug := state.slug_of(uuid)) is not None]
    return {**{name: _as_text(value) for name, value in found.items()}, "servers": slugs}


def _collection(one: Json, state: State) -> Json:
    profile = next((slug for slug, profile in state.profiles.items() if profile["uuid"] == one["profileUuid"]), None)
    slugs = [slug for uuid in one["serverUuids"] if (slug := state.slug_of(uuid)) is not None]
    of_profile = {"profile": profile} if profile is not None else {}
    return {**_described(one), **of_profile, "servers": slugs, **({"public": True} if one["isPublic"] else {})}


def _hooks(hooks: Iterable[Json]) -> Json:
    """Webhooks by their address; what is hidden in it becomes a variable."""
    found: Json = {}
    for number, hook in enumerate(hooks, 1):
        address, place = escaped(hook["url"]), 0
        while "***" in address:
            place += 1
            address = address.replace("***", f"${{WEBHOOK_{number}_{place}}}", 1)
        found[address] = {name: hook[name] for name in _HOOK_FIELDS if hook[name] not in (None, "")}
    return found
