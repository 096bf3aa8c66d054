"""The files of MCP clients, in and out."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plughub.kit.errors import Invalid
from plughub.servers.client_files import MAX_SERVERS, MAX_WARNINGS, ClientFile, read_client_file, write_client_file
from plughub.servers.schemas import Server, ServerCreate
from plughub.upstream.target import Transport

Json = dict[str, Any]
SECRETS = ("canary-env", "canary-header", "canary-query", "canary-user", "canary-argument")


def one(entry: Json, **more: Any) -> ServerCreate:
    """The only server of a file."""
    [found] = read_client_file({"mcpServers": {"one": entry}, **more}).entries
    return found.create


def warned(file: ClientFile) -> list[str]:
    return [warning["field"] for warning in file.warnings]


def server(slug: str, transport: Transport, config: Json, **more: Any) -> Server:
    given = {"name": slug, "description": "", "enabled": True, **more}
    return Server("i", "s", "p", slug, given["name"], given["description"], transport, given["enabled"], 1, 0.0, 0.0, config)


@pytest.mark.requirement("servers.export-and-import")
@pytest.mark.parametrize(
    ("entry", "transport"),
    [
        ({"command": "x"}, "STDIO"),
        ({"type": "stdio", "command": "x"}, "STDIO"),
        ({"url": "http://x/mcp"}, "STREAMABLE_HTTP"),
        ({"url": "http://x/sse"}, "SSE"),
        ({"url": "http://x/sse/?a=b"}, "SSE"),
        ({"type": "http", "url": "http://x/sse"}, "STREAMABLE_HTTP"),
        ({"type": "streamable-http", "url": "http://x"}, "STREAMABLE_HTTP"),
        ({"type": "streamableHttp", "url": "http://x"}, "STREAMABLE_HTTP"),
        ({"type": "sse", "url": "http://x"}, "SSE"),
        ({"serverUrl": "http://x"}, "STREAMABLE_HTTP"),
        ({"httpUrl": "http://x"}, "STREAMABLE_HTTP"),
        ({"transport": "SSE", "url": "http://x"}, "SSE"),
        ({"type": "stdio", "command": "x", "url": "http://x"}, "STDIO"),
    ],
)
def test_every_client_s_way_to_say_the_transport_is_understood(entry: Json, transport: str) -> None:
    assert one(entry).type == transport


@pytest.mark.requirement("servers.export-and-import")
@pytest.mark.parametrize("wrapped", [lambda s: {"mcpServers": s}, lambda s: {"servers": s}, lambda s: {"mcp": {"servers": s}}])
def test_the_servers_are_found_where_each_client_keeps_them(wrapped: Any) -> None:
    file = read_client_file({**wrapped({"a": {"command": "x", "args": ["-y"]}}), "globalShortcut": "Ctrl+Space"})
    assert [(entry.name, entry.create.config) for entry in file.entries] == [("a", {"command": "x", "args": ["-y"]})]
    assert warned(file) == ["globalShortcut"]


def test_what_the_hub_has_no_use_for_is_left_out_with_a_warning() -> None:
    entry = {"command": "x", "cwd": "/", "alwaysAllow": ["y"], "headers": {"A": "b"}, "url": None, "timeout": 5}
    file = read_client_file({"mcpServers": {"a": {**entry, "disabled": True, "notes": "n"}, "b": {"url": "http://x", "env": {}}}})
    a, b = file.entries
    assert (a.create.config, a.create.enabled, a.create.description) == ({"command": "x"}, False, "n")
    assert (b.create.config, b.create.enabled) == ({"url": "http://x"}, True)
    assert warned(file) == ["mcpServers.a.cwd", "mcpServers.a.alwaysAllow", "mcpServers.a.timeout", "mcpServers.a.headers"]
    many = read_client_file({"mcpServers": {"a": {"command": "x", **{f"k{n}": 1 for n in range(MAX_WARNINGS + 50)}}}})
    assert len(many.warnings) == MAX_WARNINGS


@pytest.mark.requirement("servers.export-and-import", "errors.invalid-field-is-named")
@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "mcpServers"),
        ({"mcpservers": {}}, "mcpservers"),
        ({"mcpServers": []}, "mcpServers"),
        ({"mcpServers": "x"}, "mcpServers"),
        ({"mcp": 5}, "mcpServers"),
        ({"mcpServers": {}, "servers": {}}, "mcpServers"),
        ({"mcpServers": {str(n): {"command": "x"} for n in range(MAX_SERVERS + 1)}}, "mcpServers"),
        ({"mcpServers": {"a": []}}, "mcpServers.a"),
        ({"mcpServers": {"a": None}}, "mcpServers.a"),
        ({"mcpServers": {"a": {}}}, "mcpServers.a.command"),
        ({"mcpServers": {"a": {"command": 5}}}, "mcpServers.a.command"),
        ({"mcpServers": {"a": {"command": ""}}}, "mcpServers.a.command"),
        ({"mcpServers": {"a": {"command": "x", "args": "y"}}}, "mcpServers.a.args"),
        ({"mcpServers": {"a": {"command": "x", "args": ["y", 5]}}}, "mcpServers.a.args.1"),
        ({"mcpServers": {"a": {"command": "x", "env": []}}}, "mcpServers.a.env"),
        ({"mcpServers": {"a": {"command": "x", "env": {"N": 5}}}}, "mcpServers.a.env.N"),
        ({"mcpServers": {"a": {"command": "x", "env": {"N": "***"}}}}, "mcpServers.a.env.N"),
        ({"mcpServers": {"a": {"command": "x", "disabled": "no"}}}, "mcpServers.a.disabled"),
        ({"mcpServers": {"a": {"command": "x", "type": 5}}}, "mcpServers.a.type"),
        ({"mcpServers": {"a": {"command": "x", "type": "telnet"}}}, "mcpServers.a.type"),
        ({"mcpServers": {"a": {"command": "x", "url": "http://x"}}}, "mcpServers.a.type"),
        ({"mcpServers": {"a": {"command": "x", "description": 5}}}, "mcpServers.a.description"),
        ({"mcpServers": {"a": {"url": "ftp://x"}}}, "mcpServers.a.url"),
        ({"mcpServers": {"a": {"url": "http://[::1"}}}, "mcpServers.a.url"),
        ({"mcpServers": {"a": {"url": 5}}}, "mcpServers.a.url"),
        ({"mcpServers": {"a": {"url": ["http://x"]}}}, "mcpServers.a.url"),
        ({"mcpServers": {"a": {"url": "http://x", "serverUrl": "http://y"}}}, "mcpServers.a.serverUrl"),
        ({"mcpServers": {"a": {"url": "http://x", "headers": {"Host": "y"}}}}, "mcpServers.a.headers"),
        ({"mcpServers": {"": {"command": "x"}}}, "mcpServers."),
        ({"servers": {"x" * 101: {"command": "x"}}}, "servers." + "x" * 100),
        ({"servers": {}, "inputs": {}}, "inputs"),
        ({"servers": {}, "inputs": [{"id": 5}]}, "inputs"),
        ({"servers": {}, "values": []}, "values"),
        ({"servers": {}, "values": {"a": 5}}, "values"),
    ],
)
def test_a_wrong_field_is_named_as_it_stands_in_the_file(document: Json, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_client_file(document)
    assert caught.value.errors[0]["field"] == field, caught.value.errors
    assert "config." not in str(caught.value.errors)


def test_every_wrong_server_is_named_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        read_client_file({"mcpServers": {"a": {"command": 5}, "b": {"command": "x"}, "c": {"url": "x"}}})
    assert [error["field"] for error in caught.value.errors] == ["mcpServers.a.command", "mcpServers.c.url"]


@pytest.mark.requirement("servers.export-without-secrets")
def test_placeholders_are_filled_by_what_stands_beside_them_and_by_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "of the hub")
    entry = {"command": "x", "env": {"A": "${TOKEN}", "B": "a-${env:TOKEN}-${input:id}", "C": "${X:-d}", "D": "$HOME"}}
    inputs = [{"id": "id", "type": "promptString", "default": "i"}]
    filled = one(entry, inputs=inputs, values={"TOKEN": "t"})
    assert (filled.config["env"], filled.enabled) == ({"A": "t", "B": "a-t-i", "C": "d", "D": "$HOME"}, True)
    file = read_client_file({"mcpServers": {"one": entry}})
    assert file.entries[0].create.enabled is False
    assert file.entries[0].create.config["env"]["A"] == "${TOKEN}"
    assert [warning["message"] for warning in file.warnings] == ["no value for TOKEN, id: the server is switched off until it has them"]


@pytest.mark.requirement("servers.export-without-secrets")
def test_a_secret_argument_stays_secret_and_in_its_place() -> None:
    config = one({"command": "x", "args": ["-y", "--key", "${KEY}", "--last"]}, values={"KEY": "k"}).config
    assert config == {"command": "x", "args": ["-y", "--key"], "secret_args": ["k", "--last"]}


def test_a_value_where_it_would_be_shown_is_warned_of() -> None:
    shown = {"a": {"url": "http://x/${KEY}/mcp"}, "b": {"url": "http://x/mcp?key=${KEY}"}, "c": {"command": "${KEY}"}}
    assert warned(read_client_file({"mcpServers": shown, "values": {"KEY": "k-1"}})) == ["mcpServers.a", "mcpServers.c"]


@pytest.mark.requirement("servers.export-without-secrets")
def test_an_export_holds_no_secret_and_comes_back_whole_with_its_values() -> None:
    stdio = {"command": "x", "args": ["-y"], "env": {"KEY": SECRETS[0], "A B": "e"}, "secret_args": [SECRETS[4]]}
    url = f"https://{SECRETS[3]}@x.test/mcp?key={SECRETS[2]}&q"
    servers = [
        server("one", "STDIO", stdio, description="d"),
        server("two", "STDIO", {"command": "y", "args": [], "env": {"KEY": "canary-other"}, "secret_args": []}, enabled=False),
        server("three", "STREAMABLE_HTTP", {"url": url, "headers": {"X-A": SECRETS[1], "X_A": "h"}}),
        server("four", "SSE", {"url": "http://x/", "headers": {}}),
    ]
    written = write_client_file(servers)
    assert "canary" not in str(written)
    assert written["mcpServers"] == {
        "one": {"command": "x", "args": ["-y", "${ONE_ARG_1}"], "env": {"KEY": "${KEY}", "A B": "${A_B}"}, "description": "d"},
        "two": {"command": "y", "args": [], "env": {"KEY": "${TWO_KEY}"}, "disabled": True},
        "three": {
            "type": "http",
            "url": "https://${THREE_URL_USER}@x.test/mcp?key=${THREE_KEY}&${THREE_QUERY}",
            "headers": {"X-A": "${THREE_X_A}", "X_A": "${THREE_X_A_2}"},
        },
        "four": {"type": "sse", "url": "http://x/", "headers": {}},
    }
    values = {
        "ONE_ARG_1": SECRETS[4],
        "KEY": SECRETS[0],
        "A_B": "e",
        "TWO_KEY": "canary-other",
        "THREE_URL_USER": SECRETS[3],
        "THREE_KEY": SECRETS[2],
        "THREE_QUERY": "q",
        "THREE_X_A": SECRETS[1],
        "THREE_X_A_2": "h",
    }
    back = read_client_file({**written, "values": values})
    assert back.warnings == []
    assert [entry.create.config | {"enabled": entry.create.enabled} for entry in back.entries] == [
        {**stdio, "enabled": True},
        {"command": "y", "args": [], "env": {"KEY": "canary-other"}, "enabled": False},
        {"url": url, "headers": {"X-A": SECRETS[1], "X_A": "h"}, "enabled": True},
        {"url": "http://x/", "headers": {}, "enabled": True},
    ]


KEYS = ("command", "args", "env", "url", "headers", "type", "transport", "disabled", "enabled", "description", "serverUrl", "cwd")
ODD = ("${X}", "${env:Y:-d}", "${", "http://[::1", "http://x/${X}", "http://u@x?a", "//", "***", "stdio", "sse", "http")
leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(ODD)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4), max_leaves=8
)
servers_of = st.dictionaries(st.text(max_size=3), st.dictionaries(st.sampled_from(KEYS), values, max_size=5) | values, max_size=3)
places = st.sampled_from(("mcpServers", "servers", "inputs", "mcp", "values", "x"))


@pytest.mark.requirement("servers.export-and-import")
@settings(max_examples=300, deadline=None)
@given(st.dictionaries(places, servers_of | values, max_size=3))
def test_whatever_a_file_holds_it_is_read_or_refused_by_name(document: Json) -> None:
    try:
        read_client_file(document)
    except Invalid as error:
        assert all(problem["field"] and problem["message"] for problem in error.errors)
