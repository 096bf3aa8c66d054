"""A hub's file: how it is read, what is refused and in which line, and how it is held against a hub. Without a hub."""

import json
from typing import Any

import pytest

from plughub.cli.exits import Failure
from plughub.cli.hub_file import differences
from plughub.cli.hub_file.form import Form, HubFile
from plughub.cli.hub_file.planning import Planner
from plughub.cli.hub_file.reading import MAX_BYTES, Document
from plughub.cli.hub_file.state import State
from plughub.cli.hub_file.steps import Ref, Template, encoded

NAME = "hub.yaml"
SERVER = "version: 1\nservers:\n  memory:\n    type: STDIO\n    command: npx\n"


def read(text: str | bytes, **environ: str) -> HubFile:
    document = Document(NAME)
    return Form(document, environ).check(document.read(text.encode() if isinstance(text, str) else text))


def mistake(text: str | bytes, **environ: str) -> str:
    with pytest.raises(Failure) as found:
        read(text, **environ)
    return "\n".join([found.value.text, *found.value.lines])


@pytest.mark.requirement("cli.apply-refuses-with-lines")
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("version: 1\na: &a [x]\nb: [*a, *a]\n", 2, "anchors and aliases"),
        ("version: 1\nservers: *a\n", 2, "anchors and aliases"),
        ("version: 1\nservers: !!python/object/apply:os.system [x]\n", 2, "tags are not read"),
        ("version: 1\nservers:\n  a: !secret x\n", 3, "tags are not read"),
        ("version: 1\nservers: {}\nversion: 1\n", 3, "'version' stands here twice; first in line 1"),
        (SERVER + "    command: node\n", 6, "'command' stands here twice; first in line 5"),
        ("version: 1\nservers:\n  <<: {a: b}\n", 3, "merge keys"),
        ("version: 1\n---\nversion: 1\n", 2, "a second document"),
        ("version: 1\nservers:\n  ? [a]\n  : b\n", 3, "a name must be a text"),
        ("version: 1\nservers:\n\ta: b\n", 3, "not YAML"),
        ("version: 1\nservers: {\n", 3, "not YAML"),
        ("version: 1\nservers: " + "[" * 30 + "]" * 30, 2, "nested deeper than 20"),
        ("version: 1\nservers: \x07\n", 2, "is not allowed"),
        ("version: 2\n", 1, "version 2 is not known"),
        ("version: true\n", 1, "version True is not known"),
        ("servers: {}\n", 1, "version: 1"),
        ("- version: 1\n", 1, "must hold names"),
        ("version: 1\nserver: {}\n", 2, "'server' is not known. Did you mean 'servers'?"),
        (SERVER + "    arg: [x]\n", 6, "'arg' is not known. Did you mean 'args'?"),
        (SERVER + "    args: x\n", 6, "servers.memory.args must be a list"),
        (SERVER + "    args: [yes, true]\n", 6, "servers.memory.args[1] must be a text (in quotes)"),
        (SERVER + "    enabled: no\n", 6, "must be true or false"),
        (SERVER + "    call_timeout_ms: soon\n", 6, "must be a whole number"),
        (SERVER + "    url: http://x\n", 3, "a server of type STDIO has no 'url'"),
        ("version: 1\nservers:\n  m: {type: SSE}\n", 3, "a server of type SSE has a 'url'"),
        ("version: 1\nservers:\n  m: {command: x}\n", 3, "'type' is missing"),
        ("version: 1\nservers:\n  m: {type: HTTP}\n", 3, "must be one of STDIO, SSE, STREAMABLE_HTTP"),
        ("version: 1\nservers:\n  My Server: {type: SSE}\n", 3, "is no slug"),
        (SERVER + "    env: {API_TOKEN: abc}\n", 6, "is a secret: write ${NAME}"),
        (SERVER + "    secret_args: [abc]\n", 6, "is a secret: write ${NAME}"),
        (SERVER + "    env: {A: '${no name}'}\n", 6, "'${' begins a variable"),
        (SERVER + "    env: {A: '${'}\n", 6, "'${' begins a variable"),
        ("version: 1\nservers:\n  m: {type: SSE, url: 'https://u:p@x'}\n", 3, "a secret in an address"),
        ("version: 1\nservers:\n  m: {type: SSE, url: 'https://x?token=p'}\n", 3, "a secret in an address"),
        ("version: 1\nwebhooks:\n  https://x: {}\n", 3, "'events' is missing"),
        ("version: 1\nwebhooks:\n  https://x: {events: [a], secret: abc}\n", 3, "is a secret: write ${NAME}"),
        ("version: 1\nkeys:\n  k: {kind: root}\n", 3, "must be one of public, secret"),
        ("version: 1\nprofiles:\n  p: {servers: [a]}\n", 3, "profiles.p.servers must hold names"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    told = mistake(text)
    assert told.startswith(f"{NAME}:{line}: ") and words in told, told


@pytest.mark.requirement("cli.apply-refuses-with-lines")
def test_what_is_no_text_or_too_much_is_refused() -> None:
    assert mistake("") == mistake("# nothing\n") == f"{NAME} is empty"
    assert "not UTF-8" in mistake(b"version: \xff\n")
    assert "larger than" in mistake(b" " * (MAX_BYTES + 1))
    bomb = "a: &a [x,x,x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20))
    assert ":1: anchors" in mistake(bomb)


@pytest.mark.requirement("cli.apply-secrets-by-reference")
def test_secrets_come_from_the_environment_and_all_that_are_missing_are_named() -> None:
    text = SERVER + "    env: {API_TOKEN: '${A}', HOME: '/x/${B}'}\n    args: ['$${A}', no, 5]\n    secret_args: ['--key=${A}']\n"
    entry = read(text, A="one", B="two").entries("servers")["memory"]
    assert entry["env"] == {"API_TOKEN": "one", "HOME": "/x/two"} and entry["secret_args"] == ["--key=one"]
    assert entry["args"] == ["${A}", "no", "5"]
    assert mistake(text) == "Variables of the environment are missing:\n  A (line 6)\n  B (line 6)"


def state(**more: Any) -> State:
    server = {
        "uuid": "u1",
        "slug": "memory",
        "name": "memory",
        "description": "",
        "type": "STDIO",
        "enabled": True,
        "profile_uuid": "p1",
        "updated_at": "t",
        "config": {"command": "npx", "args": [], "env": {"A": "***", "B": "***"}, "secret_args": []},
    }
    profile = {
        "uuid": "p1",
        "slug": "default",
        "name": "Default",
        "description": "",
        "project_uuid": "j1",
        "is_default": True,
        "servers": [],
    }
    project = {"uuid": "j1", "name": "Default", "description": "", "is_default": True, "profiles": [profile]}
    key = {"id": "k1", "name": "own", "prefix": "pk_live_ph_abcd", "last4": "wxyz", "servers": "*", "kind": "public"}
    given = State({"Default": [project]}, {"default": profile}, {"memory": server}, {"own": [key]}, None)
    for name, value in more.items():
        setattr(given, name, value)
    return given


def planned(text: str, given: State | None = None, *, prune: bool = False, **environ: str) -> list[str]:
    document = Document(NAME)
    file = Form(document, environ).check(document.read(text.encode()))
    return [step.line() for step in Planner(document, file, given or state(), "pk_live_ph_abcd…wxyz").plan(prune=prune)]


@pytest.mark.requirement("cli.apply")
def test_a_plan_is_readable_and_tells_no_secret() -> None:
    text = SERVER + "    args: [-y]\n    env: {A: '${A}', C: c}\n    profile: default\n    enabled: false\n"
    told = 'enabled true -> false; args [] -> ["-y"]; env.C added; env.B removed'
    assert planned(text, A="canary") == [f"~ server memory: {told}"]
    assert planned(SERVER + "    env: {A: '${A}', B: b}\n", A="canary") == ["= server memory: the hub compares env.A, env.B"]
    assert planned(SERVER) == ["= server memory"], "what a file does not say of a thing stays"
    moved = "version: 1\nprofiles:\n  new: {}\n" + SERVER.removeprefix("version: 1\n") + "    profile: new\n"
    assert planned(moved) == ["+ profile new", '~ server memory: profile "default" -> "new"']
    assert planned("version: 1\nservers:\n  memory: {type: SSE, url: 'https://x?token=${A}'}\n", A="canary") == [
        '~ server memory: type "STDIO" -> "SSE"'
    ]


@pytest.mark.requirement("cli.apply-prune")
def test_only_what_is_asked_for_is_removed_and_never_the_key_that_asks() -> None:
    nothing = "version: 1\nservers: {}\nkeys: {}\nprofiles: {}\nprojects: {}\n"
    assert planned(nothing) == []
    assert planned(nothing, prune=True) == ["- server memory"]
    assert planned("version: 1\nkeys: {}\n", prune=True) == []
    other = {"id": "k2", "name": "own", "prefix": "pk_live_ph_else", "last4": "wxyz", "servers": "*", "kind": "public"}
    keys = {"own": state().keys["own"], "other": [other]}
    assert planned("version: 1\nkeys: {}\n", state(keys=keys), prune=True) == ["- key other"]


@pytest.mark.requirement("cli.apply-prune", "cli.apply-refuses-with-lines")
def test_what_the_file_names_is_not_removed() -> None:
    with pytest.raises(Failure, match=r"^hub\.yaml:4: 'memory' would be removed, and keys\.k names it$"):
        planned("version: 1\nservers: {}\nkeys:\n  k: {servers: [memory]}\n", prune=True)


@pytest.mark.requirement("cli.apply-refuses-with-lines")
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("version: 1\nkeys:\n  a: {servers: [nope]}\n", 3, "servers 'nope' is neither in the file nor in the hub"),
        ("version: 1\nprofiles:\n  p: {project: nope}\n", 3, "project 'nope' is neither"),
        (SERVER + "    profile: nope\n", 3, "profile 'nope' is neither"),
        ("version: 1\nkeys:\n  own: {kind: secret}\n", 3, "is a public key, and that stays"),
        ("version: 1\nprojects:\n  New: {profile: default}\n", 3, "a profile 'default' is there already"),
        ("version: 1\nprojects:\n  Default: {profile: other}\n", 3, "is 'default', and that stays"),
        ("version: 1\nwebhooks:\n  https://x: {events: [a]}\n", 3, "this hub has no webhooks"),
        ("version: 1\ncollections:\n  c: {}\n", 3, "this hub has no collections"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(text: str, line: int, words: str) -> None:
    with pytest.raises(Failure) as found:
        planned(text)
    assert found.value.text.startswith(f"{NAME}:{line}: ") and words in found.value.text
    twice = state(keys={"own": state().keys["own"] * 2})
    with pytest.raises(Failure, match="2 keys are called 'own'"):
        planned("version: 1\nkeys:\n  own: {}\n", twice)


@pytest.mark.requirement("cli.apply")
def test_a_collection_is_told_in_names() -> None:
    now = {"uuid": "c1", "name": "c", "description": "", "profileUuid": "p1", "serverUuids": ["u1"], "isPublic": False}
    text = "version: 1\ncollections:\n  c: {profile: default, servers: [memory], public: %s}\n  d: {servers: [memory]}\n"
    has = state(collections={"c": [now]})
    assert planned(text % "false", has) == ["= collection c", "+ collection d"]
    assert planned(text % "true", has) == ["~ collection c: public false -> true", "+ collection d"]
    new = SERVER.replace("memory", "other") + "collections:\n  c: {servers: [other, memory]}\n"
    assert planned(new, has)[1] == '~ collection c: servers ["memory"] -> ["other", "memory"]'


def test_the_same_in_other_words_is_no_difference() -> None:
    now = {"expires_at": "2031-01-01T00:00:00.000Z", "allowed_ips": ["10.0.0.0/8"], "scopes": ["b", "a"], "labels": {}}
    same = {"expires_at": "2031-01-01T01:00:00+01:00", "allowed_ips": ["10.0.0.0/8"], "scopes": ["a", "b"], "labels": {}}
    assert differences.plain(now, same) == ([], {})
    other = {"expires_at": None, "allowed_ips": ["no address"], "scopes": ["a"], "labels": {"a": "b"}}
    assert set(differences.plain(now, other)[1]) == set(other)
    hidden = {"url": "https://x?token=***", "headers": {}}
    assert differences.config(hidden, {"url": "https://x?token=abc"}) == ([], ["url"], {"url": "https://x?token=abc"})
    assert differences.config(hidden, {"url": "https://y?token=abc"})[0] == ['url "https://x?token=***" -> "https://y?token=***"']
    assert differences.config({"secret_args": ["***"]}, {"secret_args": ["a"]})[1] == ["secret_args"]
    assert differences.config({"secret_args": ["***"]}, {"secret_args": []})[0] == ['secret_args ["***"] -> []']


def test_a_profiles_words_about_tools_are_all_in_the_file() -> None:
    now = {"add": {"enabled": False}, "echo": {"name": "say", "description": None}}
    changes, patch = differences.tools(now, {"echo": {"description": "d"}, "new": {"enabled": True}})
    assert patch == {"add": None, "echo": {"name": None, "description": "d"}}
    assert [change.split()[1] for change in changes] == ["add", "echo"]
    assert differences.tools(now, {"add": {"enabled": False}, "echo": {"name": "say"}})[0] == []


def test_a_server_at_home_is_in_its_profile_without_being_added() -> None:
    text = "version: 1\nprofiles:\n  p: {servers: {new: %s, memory: {}}}\nservers:\n  new: {type: SSE, url: 'https://x', profile: p}\n"
    assert planned(text % "{}")[2:] == ["~ servers of profile p: server memory added"]
    assert planned(text % "{enabled: false}")[2:] == ["~ servers of profile p: server new enabled true -> false; server memory added"]


def test_nothing_of_a_file_becomes_a_reference_of_a_batch() -> None:
    text = encoded({"path": Template("/api/{{o1.body.uuid}}"), "a": Ref("o1"), "b": ["x {{o1.body.key}} {", 1, None], "{{c}}": True})
    assert json.loads(text) == {
        "path": "/api/{{o1.body.uuid}}",
        "a": "{{o1.body.uuid}}",
        "b": ["x {{o1.body.key}} {", 1, None],
        "{{c}}": True,
    }
    assert text.count("{{") == 2, "the two that are meant"
