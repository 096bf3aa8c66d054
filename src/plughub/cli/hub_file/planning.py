"""From a file and a hub to steps. What a file does not say of a thing stays; things that it does not name stay too, unless pruned."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

from plughub.cli.exits import Failure
from plughub.cli.hub_file import differences
from plughub.cli.hub_file.form import HubFile
from plughub.cli.hub_file.reading import Document
from plughub.cli.hub_file.state import State
from plughub.cli.hub_file.steps import Action, Id, Operation, Ref, Step

Json = dict[str, Any]
_CONFIG = ("command", "args", "env", "secret_args", "url", "headers", "call_timeout_ms", "start_timeout_ms")
_OF_SERVER = ("name", "description", "enabled")


class Planner:
    """Makes the steps for one file and one hub. `own_key`: the beginning and the end of the key that asks, which is never removed."""

    def __init__(self, document: Document, file: HubFile, state: State, own_key: str) -> None:
        self._document, self._file, self._state, self._own_key = document, file, state, own_key
        self._numbers = count(1)
        self._projects: dict[str, Id] = {name: found[0]["uuid"] for name, found in state.projects.items() if len(found) == 1}
        self._profiles: dict[str, Id] = {slug: one["uuid"] for slug, one in state.profiles.items()}
        self._servers: dict[str, Id] = {slug: one["uuid"] for slug, one in state.servers.items()}
        # Default profiles that come with a new project, as they will be.
        self._coming: dict[str, Json] = {}
        # Who in the file names a thing by its id.
        self._namers: dict[Id, tuple[str, str]] = {}
        self.steps: list[Step] = []

    def plan(self, *, prune: bool) -> list[Step]:
        """The steps, in an order in which each finds what it needs. Raises Failure."""
        for section, work in (("projects", self._project), ("profiles", self._profile), ("servers", self._server)):
            for name, entry in self._file.entries(section).items():
                work(name, entry)
        for slug, entry in self._file.entries("profiles").items():
            if "servers" in entry:
                self._members(slug, entry["servers"])
        for section, things, work in (("collections", self._state.collections, self._collection), ("keys", self._state.keys, self._key)):
            for name, entry in self._file.entries(section).items():
                if things is None:
                    raise self._wrong(section, name, f"this hub has no {section}")
                work(name, entry)
        self._webhooks()
        if prune:
            self._prune()
        return self.steps

    def _project(self, name: str, entry: Json) -> None:
        now = self._only(self._state.projects, "projects", name)
        slug, described = entry.get("profile"), {k: v for k, v in entry.items() if k == "description"}
        if now is not None:
            is_now = next((p["slug"] for p in now["profiles"] if p["is_default"]), None)
            if slug is not None and slug != is_now:
                raise self._wrong("projects", name, f"the default profile of '{name}' is '{is_now}', and that stays")
            self._change("project", name, now, described, "/api/projects/")
            return
        if slug is not None and slug in self._state.profiles:
            raise self._wrong("projects", name, f"a profile '{slug}' is there already, so it cannot be the default one of a new project")
        # The default profile is called as its project is when that is made, and so is its slug.
        made = self._operation("POST", ("/api/projects",), {"name": slug or name, **described})
        self._projects[name] = Ref(made.id)
        operations = [made]
        if slug is not None:
            self._profiles[slug] = Ref(made.id, "default_profile_uuid")
            self._coming[slug] = {"name": slug, "description": "", "project_uuid": Ref(made.id)}
            if slug != name:
                operations.append(self._operation("PATCH", ("/api/projects/", Ref(made.id)), {"name": name}))
        self._step("create", "project", name, operations)

    def _profile(self, slug: str, entry: Json) -> None:
        wanted: Json = {name: entry[name] for name in ("name", "description") if name in entry}
        if "project" in entry:
            wanted["project_uuid"] = self._id(self._projects, entry["project"], "profiles", slug, "project")
        now = self._state.profiles.get(slug) or self._coming.get(slug)
        if now is not None:
            self._change("profile", slug, now, wanted, "/api/profiles/", self._profiles[slug])
            return
        made = self._operation("POST", ("/api/profiles",), {**wanted, "name": slug})
        self._profiles[slug] = Ref(made.id)
        self._step("create", "profile", slug, [made, *self._renamed(wanted, slug, "/api/profiles/", made)])

    def _server(self, slug: str, entry: Json) -> None:
        wanted: Json = {name: entry[name] for name in _OF_SERVER if name in entry}
        if "profile" in entry:
            wanted["profile_uuid"] = self._id(self._profiles, entry["profile"], "servers", slug, "profile")
        config = {name: entry[name] for name in _CONFIG if name in entry}
        now = self._state.servers.get(slug)
        if now is None:
            body = {**wanted, "name": slug, "type": entry["type"], "config": {k: v for k, v in config.items() if v is not None}}
            made = self._operation("POST", ("/api/servers",), body)
            self._servers[slug] = Ref(made.id)
            operations = [made, *self._renamed(wanted, slug, "/api/servers/", made)]
            self._step("create", "server", slug, operations, [f"{entry['type']} {entry.get('command') or ''}".strip()])
            return
        changes, patch = differences.plain(now, wanted, self._name_of)
        if now["type"] != entry["type"]:
            changes.append(differences.told("type", now["type"], entry["type"]))
            patch |= {"type": entry["type"], "config": config}
            unseen: list[str] = []
        else:
            more, unseen, of_config = differences.config(now["config"], config)
            changes += more
            patch |= {"config": of_config} if of_config else {}
        operations = [self._operation("PATCH", ("/api/servers/", now["uuid"]), patch)] if patch else []
        step = self._step("change" if changes else "leave", "server", slug, operations, changes)
        step.unseen, step.was = unseen, now["updated_at"]

    def _members(self, slug: str, wanted: Mapping[str, Json]) -> None:
        now = {m["slug"]: m for m in self._state.profiles.get(slug, {}).get("servers", ())}
        path = ("/api/profiles/", self._profiles[slug], "/servers/")
        changes: list[str] = []
        operations: list[Operation] = []
        for name, said in wanted.items():
            server = self._id(self._servers, name, "profiles", slug, "servers")
            before = now.get(name)
            told, patch = differences.tools(before["tools"] if before else {}, said.get("tools", {}))
            enabled = said.get("enabled", True)
            at_home = self._file.entries("servers").get(name, {}).get("profile") == slug
            if before is None and not at_home:
                told = [f"server {name} added", *told]
            elif (before or {"enabled": True})["enabled"] != enabled:
                told.append(differences.told(f"server {name} enabled", not enabled, enabled))
            if told:
                changes += told
                operations.append(self._operation("PUT", (*path, server), {"enabled": enabled, "tools": patch}))
        for name, member in now.items():
            if name in wanted or (member["home"] and member["enabled"] and not member["tools"]):
                continue
            changes.append(f"server {name} {'as it is' if member['home'] else 'removed'}")
            body = {"enabled": True, "tools": dict.fromkeys(member["tools"])}
            operations.append(
                self._operation(*(("PUT", (*path, member["uuid"]), body) if member["home"] else ("DELETE", (*path, member["uuid"]))))
            )
        if changes:
            self._step("change", "servers of profile", slug, operations, changes)

    def _collection(self, name: str, entry: Json) -> None:
        now = self._only(self._state.collections or {}, "collections", name)
        wanted: Json = {"description": entry["description"]} if "description" in entry else {}
        if "public" in entry:
            wanted["isPublic"] = entry["public"]
        if "profile" in entry:
            wanted["profileUuid"] = self._id(self._profiles, entry["profile"], "collections", name, "profile")
        if "servers" in entry:
            wanted["serverUuids"] = [self._id(self._servers, slug, "collections", name, "servers") for slug in entry["servers"]]
        if now is None:
            self._step("create", "collection", name, [self._operation("POST", ("/api/collections",), {"name": name, **wanted})])
        else:
            self._change("collection", name, now, wanted, "/api/collections/")

    def _key(self, name: str, entry: Json) -> None:
        now = self._only(self._state.keys, "keys", name)
        servers = entry.get("servers")
        ids = servers if servers in (None, "*") else [self._id(self._servers, slug, "keys", name, "servers") for slug in servers]
        wanted = {k: v for k, v in entry.items() if k != "servers"}
        if now is None:
            body = {"name": name, **{k: v for k, v in wanted.items() if k != "status" and v is not None}}
            made = self._operation("POST", ("/api/auth/keys",), {**body, **({} if ids is None else {"servers": ids})})
            operations = [made]
            if wanted.get("status") == "suspended":
                operations.append(self._operation("PATCH", ("/api/auth/keys/", Ref(made.id, "id")), {"status": "suspended"}))
            self._step("create", "key", name, operations)
            return
        if "kind" in wanted and wanted.pop("kind") != now["kind"]:
            raise self._wrong("keys", name, f"'{name}' is a {now['kind']} key, and that stays")
        changes, patch = differences.plain(now, wanted)
        slugs = now["servers"] if now["servers"] == "*" else [self._state.slug_of(uuid) or uuid for uuid in now["servers"]]
        if servers is not None and not differences.same("servers", slugs, servers):
            changes.append(differences.told("servers", slugs, servers))
            patch["servers"] = ids
        operations = [self._operation("PATCH", ("/api/auth/keys/", now["id"]), patch)] if patch else []
        self._step("change" if changes else "leave", "key", name, operations, changes)

    def _webhooks(self) -> None:
        entries = self._file.entries("webhooks")
        if entries and self._state.webhooks is None:
            raise self._wrong("webhooks", next(iter(entries)), "this hub has no webhooks")
        left = list(self._state.webhooks or ())
        for name, entry in entries.items():
            now = next((hook for hook in left if _is_address(hook["url"], entry["url"])), None)
            if now is None:
                self._step("create", "webhook", name, [self._operation("POST", ("/api/webhooks",), entry)])
                continue
            left.remove(now)
            wanted = {k: v for k, v in entry.items() if k not in ("secret", "url")}
            self._change("webhook", name, now, wanted, "/api/webhooks/", now["id"])

    def _prune(self) -> None:
        """Remove what the file does not name, of the sections that it has: what leads in first, what holds others last."""
        for section, kind, path, query, things in (
            ("keys", "key", "/api/auth/keys/", "", self._unnamed_keys()),
            ("webhooks", "webhook", "/api/webhooks/", "", self._unnamed_hooks()),
            ("collections", "collection", "/api/collections/", "", _pairs(self._state.collections or {})),
            ("servers", "server", "/api/servers/", "", list(self._state.servers.items())),
            ("profiles", "profile", "/api/profiles/", "?servers=move", _removable(self._state.profiles.items())),
            ("projects", "project", "/api/projects/", "?servers=move", _removable(_pairs(self._state.projects))),
        ):
            if self._file.sections[section] is None:
                continue
            for name, thing in things:
                if name not in self._file.entries(section):
                    if (namer := self._namers.get(thing.get("uuid", ""))) is not None:
                        raise self._wrong(*namer, f"'{name}' would be removed, and {'.'.join(namer)} names it")
                    operation = self._operation("DELETE", (path, thing.get("uuid") or thing["id"], query))
                    self._step("remove", kind, name, [operation])

    def _unnamed_keys(self) -> list[tuple[str, Json]]:
        return [(name, key) for name, key in _pairs(self._state.keys) if not self._is_own(key)]

    def _unnamed_hooks(self) -> list[tuple[str, Json]]:
        wanted = [entry["url"] for entry in self._file.entries("webhooks").values()]
        return [(hook["url"], hook) for hook in self._state.webhooks or () if not any(_is_address(hook["url"], url) for url in wanted)]

    def _is_own(self, key: Json) -> bool:
        return self._own_key.startswith(key["prefix"]) and self._own_key.endswith(key["last4"])

    def _change(self, kind: str, name: str, now: Json, wanted: Json, path: str, id_: Id | None = None) -> None:
        changes, patch = differences.plain(now, wanted, self._name_of)
        operations = [self._operation("PATCH", (path, id_ or now["uuid"]), patch)] if patch else []
        self._step("change" if changes else "leave", kind, name, operations, changes)

    def _renamed(self, wanted: Json, slug: str, path: str, made: Operation) -> list[Operation]:
        """What was made under its slug gets its name."""
        name = wanted.get("name", slug)
        return [] if name == slug else [self._operation("PATCH", (path, Ref(made.id)), {"name": name})]

    def _step(self, action: Action, kind: str, name: str, operations: Sequence[Operation], changes: Sequence[str] = ()) -> Step:
        step = Step(action, kind, name, list(changes), list(operations))
        self.steps.append(step)
        return step

    def _operation(self, method: str, path: tuple[Id, ...], body: Any = None) -> Operation:
        return Operation(f"o{next(self._numbers)}", method, path, body)

    def _only(self, found: Mapping[str, list[Json]], section: str, name: str) -> Json | None:
        several = found.get(name, [])
        if len(several) > 1:
            raise self._wrong(section, name, f"{len(several)} {section} are called '{name}': give them names of their own first")
        return several[0] if several else None

    def _id(self, ids: Mapping[str, Id], name: str, section: str, entry: str, member: str) -> Id:
        if name not in ids:
            raise self._wrong(section, entry, f"{section}.{entry}: {member} '{name[:100]}' is neither in the file nor in the hub")
        self._namers.setdefault(ids[name], (section, entry))
        return ids[name]

    def _name_of(self, value: Any) -> Any:
        """Ids are nothing to a reader."""
        if isinstance(value, list):
            return [self._name_of(one) for one in value]
        for names in (self._projects, self._profiles, self._servers):
            for name, id_ in names.items():
                if id_ == value:
                    return name
        return value

    def _wrong(self, section: str, name: str, text: str) -> Failure:
        return self._document.wrong(self._file.lines.get((section, name), 1), text)


def _pairs(named: Mapping[str, list[Json]]) -> list[tuple[str, Json]]:
    return [(name, one) for name, found in named.items() for one in found]


def _removable(found: Iterable[tuple[str, Json]]) -> list[tuple[str, Json]]:
    """All but the default ones, which stay, or go with their project."""
    return [(name, one) for name, one in found if not one["is_default"]]


def _is_address(shown: str, wanted: str) -> bool:
    """Whether an address with `***` in it is that of `wanted`."""
    return re.fullmatch(".*".join(map(re.escape, shown.split("***"))), wanted) is not None
