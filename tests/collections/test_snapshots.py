"""What of a collection leaves the hub, and what comes in. Pure functions."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plughub.collections.schemas import Collection, Snapshot
from plughub.collections.snapshots import read_snapshot, write_snapshot
from plughub.kit.errors import Invalid
from plughub.servers.schemas import Server, checked, checked_config

FOUND = Collection("c", "s", None, "Tools", "d", True, None, 0.0, 0.0, None)


def server(name: str, transport: Any, config: dict[str, Any]) -> Server:
    stored = checked_config(transport, config)
    return Server("id", "s", "p", name.lower(), name, "about", transport, True, 1, 0.0, 0.0, config=stored)


GITHUB = server(
    "GitHub", "STDIO", {"command": "npx", "args": ["-y", "{{kept}}"], "secret_args": ["s1", "s2"], "env": {"TOKEN": "t1", "a.b": "t2"}}
)
REMOTE = server(
    "Remote",
    "STREAMABLE_HTTP",
    {"url": "https://me:pw@example.com/{{x}}/mcp?key=k1&key=k2&flag", "headers": {"Authorization": "Bearer h"}, "call_timeout_ms": 5},
)


def filled(values: dict[str, str], *servers: Server) -> list[dict[str, Any]]:
    snapshot = checked(Snapshot, json.loads(json.dumps(write_snapshot(FOUND, servers))))
    return [create.config for create in read_snapshot(snapshot, values, None)]


@pytest.mark.requirement("collections.no-secrets")
def test_every_secret_is_a_placeholder_of_its_own_and_all_else_passes() -> None:
    written = write_snapshot(FOUND, [GITHUB, REMOTE, GITHUB])
    first, remote, again = (entry["config"] for entry in written["servers"])
    assert first == {
        "command": "npx",
        "args": ["-y", "{{kept}}"],
        "secret_args": ["{{SECRET_ARG_1}}", "{{SECRET_ARG_2}}"],
        "env": {"TOKEN": "{{TOKEN}}", "a.b": "{{B}}"},
    }
    assert remote["url"] == "https://{{URL_USER}}@example.com/{{x}}/mcp?key={{KEY}}&key={{REMOTE_KEY}}&{{QUERY}}"
    assert remote["headers"] == {"Authorization": "{{AUTHORIZATION}}"} and remote["call_timeout_ms"] == 5
    assert again["env"] == {"TOKEN": "{{GITHUB_TOKEN}}", "a.b": "{{GITHUB_B}}"}
    names = [told["name"] for told in written["placeholders"]]
    assert len(names) == len(set(names)) == 13
    assert {"name": "REMOTE_KEY", "server": "Remote", "field": "config.url.KEY"} in written["placeholders"]


@pytest.mark.requirement("collections.import-asks-by-name")
def test_what_is_missing_and_what_is_not_wanted_is_named_all_at_once() -> None:
    with pytest.raises(Invalid) as raised:
        filled({"TOKEN": "x", "MORE": "y"}, GITHUB)
    assert [told["field"] for told in raised.value.errors] == ["values.B", "values.SECRET_ARG_1", "values.SECRET_ARG_2", "values.MORE"]


@pytest.mark.requirement("collections.import-asks-by-name")
def test_a_value_in_a_url_stays_what_it_is() -> None:
    names = ("URL_USER", "KEY", "REMOTE_KEY", "QUERY")
    [config] = filled({**dict.fromkeys(names, "a:b@evil/?x=1&y#z é"), "AUTHORIZATION": "a:b@evil"}, REMOTE)
    quoted = "a%3Ab%40evil%2F%3Fx%3D1%26y%23z%20%C3%A9"
    assert config["url"] == f"https://{quoted.replace('%3A', ':')}@example.com/{{{{x}}}}/mcp?key={quoted}&key={quoted}&{quoted}"
    assert config["headers"]["Authorization"] == "a:b@evil"


@pytest.mark.requirement("collections.import-asks-by-name")
def test_a_placeholder_is_one_where_a_secret_stands_and_nowhere_else() -> None:
    entry = {"name": "n", "type": "STDIO", "config": {"command": "{{A}}", "args": ["{{B}}"], "env": {"{{C}}": "x{{D}}y{{D}}"}}}
    snapshot = checked(Snapshot, {"plughub": "collection", "version": 1, "name": "n", "servers": [entry]})
    [create] = read_snapshot(snapshot, {"D": "{{A}}"}, None)
    assert create.config == {"command": "{{A}}", "args": ["{{B}}"], "env": {"{{C}}": "x{{A}}y{{A}}"}}, "filled in once, not again"


@pytest.mark.requirement("collections.import-whole-or-not")
@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"config": {}}, "config.url"),
        ({"config": {"url": "ftp://x"}}, "config.url"),
        ({"config": {"url": "http://[x?y=1"}}, "config.url"),
        ({"config": {"url": "http://x", "headers": ["a"]}}, "config.headers"),
        ({"config": {"url": "http://x", "env": {"A": "1"}}}, "config.env"),
        ({"config": {"url": "http://x", "headers": {"Host": "evil"}}}, "config.headers"),
        ({"type": "STDIO", "config": {"command": "x", "secret_args": [1]}}, "config.secret_args.0"),
    ],
)
def test_what_cannot_be_is_named_as_it_stands_in_the_document(entry: dict[str, Any], field: str) -> None:
    good = {"name": "n", "type": "STREAMABLE_HTTP", "config": {"url": "http://x"}}
    snapshot = checked(Snapshot, {"plughub": "collection", "version": 1, "name": "n", "servers": [good, good | entry]})
    with pytest.raises(Invalid) as raised:
        read_snapshot(snapshot, {}, None)
    assert raised.value.errors[0]["field"] == f"collection.servers.1.{field}"
    assert f"'collection.servers.1.{field}'" in raised.value.errors[0]["message"]


SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#[]"), min_size=8, max_size=20)


@pytest.mark.requirement("collections.no-secrets")
@given(st.lists(SECRETS, min_size=5, max_size=5), st.lists(st.sampled_from(["KEY", "key", "Key_", "a-b", "a.b"]), unique=True))
def test_no_secret_leaves_whatever_its_field_is_called(secrets: list[str], fields: list[str]) -> None:
    named = {field: f"<{secret}>" for field, secret in zip(fields, secrets, strict=False)}
    config = {"command": "c", "env": named, "secret_args": list(named.values())}
    text = json.dumps(write_snapshot(FOUND, [server("S", "STDIO", config)]))
    assert not [secret for secret in named.values() if json.dumps(secret)[1:-1] in text]
    [back] = filled(
        {told["name"]: "v" for told in write_snapshot(FOUND, [server("S", "STDIO", config)])["placeholders"]}, server("S", "STDIO", config)
    )
    assert back["env"] == dict.fromkeys(named, "v") and back.get("secret_args", []) == ["v"] * len(named)
