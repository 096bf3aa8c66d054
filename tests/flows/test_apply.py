"""A hub as a file, against hubs that run: exported, applied, changed, applied to another one."""

import json
import os
import pty
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.docs.samples import ROWS
from tests.flows.running_hub import PLUGHUB, RunningHub, environment

Done = subprocess.CompletedProcess[str]
SECRETS = {"TOKEN": "canary-1", "ARG": "canary-2"}
TEAM = """\
version: 1
projects:
  Weather Team: {description: "All of {{it}}", profile: team}
profiles:
  team:
    name: The team's
    project: Weather Team
    servers:
      weather-server: {tools: {add: {enabled: false}, echo: {name: say}}}
  spare: {project: Weather Team}
servers:
  memory:
    name: Memory of all
    type: STDIO
    profile: spare
    command: "true"
    args: [-y, "$${x}"]
    env: {API_TOKEN: "${TOKEN}", FILE: /tmp/x}
    secret_args: ["--key=${ARG}"]
  docs:
    type: STREAMABLE_HTTP
    url: https://example.com/mcp?token=${TOKEN}
    headers: {Authorization: "Bearer ${TOKEN}"}
keys:
  agent: {scopes: [execute:tools], servers: [memory, docs], expires_at: 2031-01-01T00:00:00Z, allowed_ips: [127.0.0.1], status: suspended}
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """One hub, to which each test does what it wants; the last one removes everything."""
    with RunningHub(tmp_path_factory.mktemp("apply") / "data") as running:
        yield running


def run(hub: RunningHub, *words: str, code: int = 0, stdin: str | None = None, environ: Mapping[str, str] = SECRETS) -> Done:
    given = environment({"PLUGHUB_URL": hub.url, "PLUGHUB_KEY": hub.key, **environ})
    done = subprocess.run([PLUGHUB, *words], input=stdin or "", capture_output=True, text=True, timeout=30, env=given, check=False)
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr and "canary" not in done.stdout + done.stderr
    return done


def asked(hub: RunningHub, file: Path, answer: bytes, code: int = 0) -> str:
    """What a terminal shows of `--prune` when that is the answer."""
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    given = environment({"PLUGHUB_URL": hub.url, "PLUGHUB_KEY": hub.key})
    pipe = subprocess.PIPE
    done = subprocess.run(
        [PLUGHUB, "apply", str(file), "--prune"], stdin=theirs, stdout=pipe, stderr=pipe, text=True, timeout=30, env=given, check=False
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.mark.requirement("cli.apply", "cli.apply-secrets-by-reference")
def test_a_file_makes_a_hub_and_a_second_time_there_is_nothing_to_do(hub: RunningHub, tmp_path: Path) -> None:
    file = tmp_path / "hub.yaml"
    file.write_text(TEAM)
    plan = run(hub, "apply", str(file), "--dry-run").stdout.splitlines()
    assert [line for line in plan if line.startswith("+")] == [
        "+ project Weather Team",
        "+ profile spare",
        "+ server memory: STDIO true",
        "+ server docs: STREAMABLE_HTTP",
        "+ key agent",
    ]
    assert hub.api("GET", "/api/projects").json()["total"] == 1, "a plan does nothing"
    done = run(hub, "apply", str(file)).stdout
    key = done.splitlines()[-1].removeprefix("key agent: ")
    assert hub.api("GET", "/api/servers", key=key).json()["error"]["details"]["reason"] == "key_suspended"
    assert run(hub, "apply", str(file)).stdout.endswith("Nothing to do: the hub is as the file says\n")
    changed = json.loads(run(hub, "--json", "apply", "-", stdin=TEAM, environ={**SECRETS, "TOKEN": "canary-3"}).stdout)
    assert [(step["action"], step["name"]) for step in changed["steps"]] == [("change", "memory"), ("change", "docs")]
    assert run(hub, "apply", str(file), environ={**SECRETS, "TOKEN": "canary-3"}).stdout.endswith("as the file says\n")
    project = next(one for one in hub.api("GET", "/api/projects").json()["projects"] if one["name"] == "Weather Team")
    assert project["description"] == "All of {{it}}" and [one["slug"] for one in project["profiles"]] == ["team", "spare"]
    [member] = hub.api("GET", f"/api/profiles/{project['default_profile_uuid']}").json()["servers"]
    assert member["tools"] == {"add": {"enabled": False}, "echo": {"name": "say"}}


@pytest.mark.requirement("cli.export-hub")
def test_a_hub_that_is_made_of_anothers_file_has_the_same_file(hub: RunningHub, tmp_path: Path) -> None:
    (tmp_path / "team.yaml").write_text(TEAM)
    run(hub, "apply", str(tmp_path / "team.yaml"))
    file = tmp_path / "exported.yaml"
    run(hub, "export", "--as", "hub", "-o", str(file))
    values = {"API_TOKEN": "t", "FILE": "f", "MEMORY_ARG_1": "a", "DOCS_TOKEN": "t", "DOCS_AUTHORIZATION": "t"}
    assert "Variables of the environment are missing" in run(hub, "apply", str(file), code=2).stderr
    with RunningHub(tmp_path / "other") as other:
        run(other, "apply", str(file), environ=values)
        assert run(other, "export", "--as", "hub").stdout == file.read_text()
        assert "2 keys are called" not in run(other, "apply", str(file), environ=values).stdout
        made = other.api("POST", "/api/auth/keys", {"name": "agent"})
        assert made.status_code == 201
        twice = run(other, "export", "--as", "hub")
        assert "2 keys are called agent" in twice.stderr and "agent" not in twice.stdout


@pytest.mark.requirement("cli.apply-half-done")
def test_a_mistake_that_the_hub_finds_leaves_nothing_half_done_or_says_how_far_it_came(hub: RunningHub) -> None:
    text = "version: 1\nprojects:\n  P: {}\nservers:\n  bad: {type: SSE, url: 'ftp://x'}\nkeys:\n  k: {}\n"
    before = hub.api("GET", "/api/projects").json()["total"]
    told = run(hub, "apply", "-", stdin=text, code=2).stderr
    assert told.startswith("plughub: server bad: The 'config.url' field is invalid")
    made = hub.api("GET", "/api/projects").json()["total"] - before
    if "POST /api/batch" in ROWS:
        assert made == 0 and told.endswith("Nothing was changed.\n")
    else:
        assert made == 1
        assert told.endswith(
            "done: + project P\n  not done: + server bad: SSE\n  not done: + key k\nApply the file again: what is done stays.\n"
        )


@pytest.mark.requirement("cli.apply")
@pytest.mark.skipif("POST /api/webhooks" not in ROWS, reason="needs POST /api/webhooks")
def test_webhooks_are_made_changed_and_removed(hub: RunningHub) -> None:
    text = "version: 1\nwebhooks:\n  https://example.com/hook?token=${TOKEN}: {events: [server.error], secret: '${ARG}'}\n"
    assert run(hub, "apply", "-", stdin=text).stdout.startswith("+ webhook https://example.com/hook?token=${TOKEN}\n")
    assert run(hub, "apply", "-", stdin=text).stdout.endswith("as the file says\n")
    told = run(hub, "apply", "-", stdin=text.replace("[server.error]", "[key.created]")).stdout
    assert 'events ["server.error"] -> ["key.created"]' in told
    assert "https://example.com/hook?token=${WEBHOOK_1_1}:" in run(hub, "export", "--as", "hub").stdout
    assert run(hub, "apply", "-", "--prune", "--yes", stdin="version: 1\nwebhooks: {}\n").stdout.endswith("1 changed\n")
    assert hub.api("GET", "/api/webhooks").json()["total"] == 0


@pytest.mark.requirement("cli.apply")
@pytest.mark.skipif("POST /api/collections" not in ROWS, reason="needs POST /api/collections")
def test_collections_are_made_changed_and_removed(hub: RunningHub) -> None:
    text = "version: 1\ncollections:\n  Weather: {description: d, servers: [weather-server], profile: default}\n"
    assert run(hub, "apply", "-", stdin=text).stdout.startswith("+ collection Weather\n")
    assert run(hub, "apply", "-", stdin=text).stdout.endswith("as the file says\n")
    told = run(hub, "apply", "-", stdin=text.replace("description: d", "public: true")).stdout
    assert "~ collection Weather: public false -> true" in told
    exported = run(hub, "export", "--as", "hub").stdout
    assert (
        "collections:\n  Weather:\n    description: d\n    profile: default\n    servers:\n    - weather-server\n    public: true\n"
        in exported
    )
    assert run(hub, "apply", "-", "--prune", "--yes", stdin="version: 1\ncollections: {}\n").stdout.endswith("1 changed\n")


@pytest.mark.requirement("cli.apply-prune", "cli.apply-keys-once")
def test_what_would_be_removed_is_asked_for_and_keys_go_into_files(hub: RunningHub, tmp_path: Path) -> None:
    text = "version: 1\nkeys:\n  of the agent: {scopes: [read:servers]}\n"
    kept = tmp_path / "of-the-agent.key"
    kept.write_text("another")
    assert "there already" in run(hub, "apply", "-", "--save-keys", str(tmp_path), stdin=text, code=2).stderr
    assert "no folder" in run(hub, "apply", "-", "--save-keys", str(kept), stdin=text, code=2).stderr
    assert "of the agent" not in hub.api("GET", "/api/auth/keys?limit=100").text
    kept.unlink()
    assert run(hub, "apply", "-", "--save-keys", str(tmp_path), stdin=text).stdout.endswith("key of the agent: written\n")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert hub.api("GET", "/api/servers", key=kept.read_text().strip()).status_code == 200
    nothing = "version: 1\nservers: {}\nkeys: {}\n"
    assert run(hub, "apply", "-", stdin=nothing).stdout.endswith("Nothing to do: the hub is as the file says\n")
    refused = run(hub, "apply", "-", "--prune", stdin=nothing, code=2)
    assert {"- key of the agent", "- server weather-server"} <= set(refused.stdout.splitlines()) and "--yes" in refused.stderr
    file = tmp_path / "nothing.yaml"
    file.write_text(nothing)
    assert "Remove what begins with -?" in asked(hub, file, b"n\n", code=2)
    assert hub.api("GET", "/api/servers").json()["total"] > 0
    assert "changed\n" in asked(hub, file, b"y\n")
    assert run(hub, "apply", "-", "--prune", stdin=nothing).stdout.endswith("as the file says\n")
    assert hub.api("GET", "/api/servers").json()["total"] == 0
    assert hub.api("GET", "/api/servers", key=kept.read_text().strip()).status_code == 410
