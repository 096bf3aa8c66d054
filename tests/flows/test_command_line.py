"""The command line against a running hub: every command as a user types it, its stdout, its stderr, its exit code."""

import json
import os
import pty
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.flows.processes import descendants
from tests.flows.running_hub import PLUGHUB, RunningHub, environment
from tests.flows.waiting import until

Json = dict[str, Any]
Done = subprocess.CompletedProcess[str]
HELP_S = 0.4
DEMO = str(Path(__file__).parents[2] / "src" / "plughub" / "demo_server.py")


def settings(hub: RunningHub, **more: str) -> dict[str, str]:
    return environment({"PLUGHUB_URL": hub.url, "PLUGHUB_KEY": hub.key, **more})


def run(hub: RunningHub, *words: str, code: int = 0, stdin: str = "", environ: Mapping[str, str] | None = None) -> Done:
    """One command with the operator's key in its environment; it ends with `code`, without a trace."""
    done = subprocess.run(
        [PLUGHUB, *words], input=stdin, capture_output=True, text=True, timeout=30, env=dict(environ or settings(hub)), check=False
    )
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def begin(hub: RunningHub, *words: str) -> subprocess.Popen[bytes]:
    """A command that goes on."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [PLUGHUB, *words], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=settings(hub), start_new_session=True
    )


def read(hub: RunningHub, *words: str, **more: Any) -> Any:
    """What a command says with --json: one value, and nothing else."""
    return json.loads(run(hub, "--json", *words, **more).stdout)


@pytest.mark.requirement("cli.servers", "cli.json")
def test_a_server_is_added_found_by_every_name_and_removed(hub: RunningHub) -> None:
    made = read(
        hub,
        "server",
        "add",
        "Cli One",
        "-e",
        "A=canary",
        "-e",
        "B",
        "--description",
        "d",
        "--",
        sys.executable,
        "-c",
        "--url",
        environ=settings(hub, B="b"),
    )
    assert (made["slug"], made["description"]) == ("cli-one", "d")
    assert made["config"] == {"command": sys.executable, "args": ["-c", "--url"], "env": {"A": "***", "B": "***"}, "secret_args": []}
    listed = run(hub, "server", "list").stdout
    assert listed.splitlines()[0].split() == ["SLUG", "NAME", "TYPE", "STATUS", "TOOLS", "LAST", "ERROR"]
    assert "cli-one" in listed
    public = next(mcp for mcp in hub.api("GET", "/v1/mcps?per_page=100").json()["data"] if mcp["name"] == "Cli One")["id"]
    for word in ("cli-one", "Cli One", "cli ONE", made["uuid"], public):
        assert read(hub, "server", "show", word)["uuid"] == made["uuid"]
    shown = run(hub, "server", "show", "cli-one").stdout
    assert "slug: cli-one" in shown and "A: ***" in shown and "canary" not in shown
    assert json.loads(run(hub, "--json", "server", "remove", "cli-one").stdout) == {"uuid": made["uuid"], "removed": True}
    gone = run(hub, "server", "show", made["uuid"], code=5)
    assert gone.stdout == "" and gone.stderr.startswith("plughub: Server not found\n")


@pytest.mark.requirement("cli.servers", "cli.exit-codes")
def test_a_server_has_a_command_or_a_url_and_a_name_that_is_not_unique_is_refused(hub: RunningHub) -> None:
    for kind, wanted in (("http", "STREAMABLE_HTTP"), ("sse", "SSE")):
        words = ("server", "add", "Twice", "--url", "http://127.0.0.1:1/mcp", "--type", kind, "-H", "Authorization: Bearer canary")
        made = read(hub, *words)
        assert (made["type"], made["config"]["headers"]) == (wanted, {"Authorization": "***"})
    several = run(hub, "tools", "Twice", code=2)
    assert "twice-2" in several.stderr and made["uuid"] in several.stderr
    assert "Did you mean twice?" in run(hub, "server", "show", "twise", code=5).stderr
    for words in (
        ("x",),
        ("x", "--url", "http://x", "--", "y"),
        ("x", "--header", "A=b", "--", "y"),
        ("x", "--url", "http://x", "--env", "A=b"),
    ):
        run(hub, "server", "add", *words, code=2)
    wrong = run(hub, "server", "add", "x", "--url", "ftp://x", code=2)
    assert wrong.stderr.startswith("plughub: The 'config.url' field is invalid") and "request: req_" in wrong.stderr
    for slug in ("twice", "twice-2"):
        run(hub, "server", "remove", slug)


@pytest.mark.requirement("cli.call")
def test_a_tool_is_called_with_words_json_or_stdin(hub: RunningHub) -> None:
    assert run(hub, "call", "weather-server", "add", "a=20", "b=22").stdout == "42\n"
    assert run(hub, "call", "weather-server", "echo", "text=42").stdout == "42\n"
    assert run(hub, "call", hub.demo()["uuid"], "echo", '{"text":"é\\n"}').stdout == "é\n\n"
    assert run(hub, "call", "weather-server", "echo", "-", stdin='{"text":"in"}').stdout == "in\n"
    whole = read(hub, "call", "weather-server", "get_weather", "location=Berlin, Germany")
    assert whole["result"]["location"] == "Berlin, Germany" and whole["metadata"]["request_id"].startswith("req_")
    assert json.loads(run(hub, "call", "weather-server", "get_weather", "location=Berlin, Germany").stdout) == whole["result"]


@pytest.mark.requirement("cli.call")
def test_progress_goes_to_stderr_and_the_result_to_stdout(hub: RunningHub) -> None:
    done = run(hub, "call", "weather-server", "generate_text", "prompt=the sea")
    assert done.stdout.startswith("You asked: the sea\n")
    assert done.stderr.splitlines()[0].startswith("[") and "You asked: the" in done.stderr


@pytest.mark.requirement("cli.exit-codes", "cli.call")
def test_every_way_to_fail_has_its_code(hub: RunningHub, tmp_path: Path) -> None:
    failed = run(hub, "call", "weather-server", "fail", "message=no luck", code=1)
    assert failed.stdout and failed.stderr == "plughub: The tool reported an error\n"
    assert "Did you mean 'echo'?" in run(hub, "call", "weather-server", "ech", code=5).stderr
    assert "server: " in run(hub, "call", "weather-server", "add", code=2).stderr
    run(hub, "call", "weather-server", "add", "a", code=2)
    run(hub, "call", "weather-server", "add", "[1]", code=2)
    run(hub, "call", "weather-server", "add", "-", stdin="{", code=2)
    run(hub, "call", "weather-server", "slow", "seconds=5", "--timeout", "0.05", code=6)
    run(hub, "nonsense", code=2)
    run(hub, "server", "list", "--nonsense", code=2)
    unreachable = run(hub, "tools", "--hub", "http://127.0.0.1:1", code=3)
    assert "http://127.0.0.1:1" in unreachable.stderr and "plughub serve" in unreachable.stderr
    for url in ("nonsense", "ftp://x", "http://", "http://[::1", "http://x:99999"):
        run(hub, "tools", "--hub", url, code=2)
    assert "PLUGHUB_KEY" in run(hub, "tools", code=4, environ=environment({"PLUGHUB_URL": hub.url})).stderr
    assert str(tmp_path / "none") in run(hub, "tools", "--key-file", str(tmp_path / "none"), code=4).stderr
    run(hub, "tools", "--key", "nonsense", code=4)
    run(hub, "tools", "--key", "two words", code=4)
    run(hub, "explain", "req_nothing", code=5)


@pytest.mark.requirement("cli.keys")
def test_a_key_is_printed_once_alone_and_revoked(hub: RunningHub, tmp_path: Path) -> None:
    made = run(hub, "key", "create", "Cli key", "--scope", "execute:tools,read:servers", "--server", "weather-server", "--expires", "2h")
    key = made.stdout.strip()
    assert made.stdout == key + "\n" and key.startswith("pk_live_ph_") and key not in made.stderr
    limited = settings(hub, PLUGHUB_KEY=key)
    assert run(hub, "call", "weather-server", "add", "a=1", "b=2", environ=limited).stdout == "3\n"
    run(hub, "key", "list", code=4, environ=limited)
    listed = read(hub, "key", "list")
    row = next(row for row in listed if row["name"] == "Cli key")
    assert row["servers"] == [hub.demo()["uuid"]] and row["expires_at"] and key not in json.dumps(listed)
    assert key not in run(hub, "key", "list").stdout
    file = tmp_path / "saved"
    saved = read(hub, "key", "create", "Saved", "--kind", "secret", "--save", str(file))
    assert saved["key"] is None and file.read_text().startswith("sk_live_") and file.stat().st_mode & 0o777 == 0o600
    run(hub, "key", "create", "Again", "--save", str(file), code=2)
    assert not [row for row in read(hub, "key", "list") if row["name"] == "Again"]
    run(hub, "key", "create", "Bad", "--expires", "2001-01-01T00:00:00Z", "--save", str(tmp_path / "none"), code=2)
    assert not (tmp_path / "none").exists()
    rotated = run(hub, "key", "rotate", row["id"], "--overlap", "1h")
    newer = settings(hub, PLUGHUB_KEY=rotated.stdout.strip())
    assert rotated.stdout.strip() != key and "works until" in rotated.stderr
    for either in (limited, newer):
        assert run(hub, "call", "weather-server", "add", "a=1", "b=2", environ=either).stdout == "3\n"
    run(hub, "key", "rotate", row["id"], "--overlap", "soon", code=2)
    again = read(hub, "key", "rotate", row["id"], "--overlap", "0", "--save", str(tmp_path / "newest"))
    assert again["key"] is None and (tmp_path / "newest").read_text().startswith(again["prefix"])
    assert "revoked" in run(hub, "tools", code=4, environ=newer).stderr
    assert run(hub, "key", "revoke", row["id"]).stdout.startswith(f"{row['id']} revoked at ")
    assert "revoked" in run(hub, "tools", code=4, environ=limited).stderr
    run(hub, "key", "revoke", saved["id"])


@pytest.mark.requirement("cli.import-and-export")
def test_files_of_clients_go_in_and_out(hub: RunningHub, tmp_path: Path) -> None:
    vscode = """{
      // asked for by the editor
      "inputs": [{"id": "token", "type": "promptString", "password": true}],
      "servers": {
        "cli-in": {"type": "http", "url": "http://127.0.0.1:1/mcp", "headers": {"Authorization": "Bearer ${input:token}"}, "gallery": true},
        "cli-out": {"command": "/no/such", "args": ["-y"], "env": {"KEY": "${env:SECRET}"},},
      },
    }"""
    file, desktop = tmp_path / "mcp.json", tmp_path / "claude_desktop_config.json"
    file.write_text(vscode)
    done = run(hub, "import", str(file), "--value", "token=canary", "--value", "SECRET", environ=settings(hub, SECRET="canary"))
    assert "servers.cli-in.gallery" in done.stderr and "cli-in" in done.stdout and "canary" not in done.stdout + done.stderr
    desktop.write_text(json.dumps({"globalShortcut": "x", "mcpServers": {"cli-in": {"command": "x"}}, "oauth": {"token": "canary"}}))
    again = read(hub, "import", str(desktop))
    assert (again["imported"], again["skipped"], again["warnings"]) == ([], ["cli-in"], [])
    run(hub, "import", str(desktop), "--on-conflict", "error", code=2)
    [renamed] = read(hub, "import", "-", "--on-conflict", "rename", stdin=desktop.read_text())["imported"]
    assert renamed["slug"] == "cli-in-2"
    exported = json.loads(run(hub, "export").stdout)["mcpServers"]
    assert exported["cli-in"]["headers"] == {"Authorization": "${CLI_IN_AUTHORIZATION}"}
    assert exported["cli-out"]["env"] == {"KEY": "${KEY}"} and "canary" not in str(exported)
    run(hub, "export", "-o", str(tmp_path / "out.json"))
    assert json.loads((tmp_path / "out.json").read_text())["mcpServers"] == exported
    for bad in ("{", "[]", "{}", '{"mcpServers": {"a": {"command": 5}}}'):
        file.write_text(bad)
        run(hub, "import", str(file), code=2)
    run(hub, "import", str(tmp_path / "none.json"), code=2)
    for slug in ("cli-in", "cli-in-2", "cli-out"):
        run(hub, "server", "remove", slug)


@pytest.mark.requirement("cli.servers")
def test_logs_and_tools_are_listed(hub: RunningHub) -> None:
    run(hub, "server", "add", "cli-noisy", "--", sys.executable, "-c", "import sys; sys.exit('a noise\\x1b[2J')")
    until(lambda: "a noise" in run(hub, "server", "logs", "cli-noisy").stdout, "the noise in the log")
    entries = [json.loads(line) for line in run(hub, "server", "logs", "cli-noisy", "-n", "1000", "--json").stdout.splitlines()]
    assert any("a noise" in entry["line"] and entry["at"] for entry in entries)
    tools = run(hub, "tools")
    assert "get_weather" in tools.stdout and "cli-noisy: " in tools.stderr
    assert {row["name"] for row in read(hub, "tools", "weather-server")} >= {"echo", "add"}
    run(hub, "tools", "cli-noisy", code=6)
    run(hub, "server", "remove", "cli-noisy")


@pytest.mark.requirement("cli.servers", "servers.test")
def test_a_server_is_tried_out_and_says_what_it_is_or_what_is_wrong(hub: RunningHub) -> None:
    works = run(hub, "server", "test", "weather-server").stdout
    assert "success: true" in works and "  name: plughub-demo" in works
    assert read(hub, "server", "test", "weather-server")["tools_count"] == len(read(hub, "tools", "weather-server"))
    run(hub, "server", "add", "cli-down", "--", "/no/such/command")
    fails = run(hub, "server", "test", "cli-down", code=1)
    assert "  message: " in fails.stdout and "command not found: /no/such/command" in fails.stdout
    assert fails.stderr == "plughub: The test failed\n"
    assert read(hub, "server", "test", "cli-down", code=1)["error"]["code"] == "UPSTREAM_ERROR"
    run(hub, "server", "remove", "cli-down")
    run(hub, "server", "test", "cli-down", code=5)


@pytest.mark.requirement("cli.servers", "servers.restart")
def test_a_restart_gives_a_server_another_process(hub: RunningHub) -> None:
    code = f"import runpy; runpy.run_path({DEMO!r}, run_name='__main__')"
    made = read(hub, "server", "add", "cli-restarted", "--", sys.executable, "-c", code)

    def process() -> list[int]:
        return [pid for pid, command in descendants(hub.process.pid).items() if "runpy.run_path" in command]

    assert run(hub, "call", "cli-restarted", "add", "a=1", "b=2").stdout == "3\n"
    before = process()
    again = read(hub, "server", "restart", "cli-restarted")
    assert (again["uuid"], again["status"], again["tools_count"]) == (made["uuid"], "connected", len(read(hub, "tools", "cli-restarted")))
    until(lambda: len(process()) == 1 and process() != before, "one process, and another")
    assert "status: connected" in run(hub, "server", "restart", "cli-restarted").stdout
    run(hub, "server", "remove", "cli-restarted")
    run(hub, "server", "restart", "cli-restarted", code=5)


@pytest.mark.requirement("cli.servers", "cli.ends-quietly", "servers.logs-live")
def test_a_log_is_followed_until_ctrl_c(hub: RunningHub) -> None:
    run(hub, "server", "add", "cli-followed", "--", sys.executable, "-c", "import sys; sys.exit('the same noise')")
    until(lambda: "the same noise" in run(hub, "server", "logs", "cli-followed").stdout, "the noise in the log")
    process = begin(hub, "server", "logs", "cli-followed", "-f", "-n", "1")
    assert process.stdout is not None
    assert process.stdout.readline(), "the last line"
    run(hub, "server", "restart", "cli-followed")
    assert any(b"the same noise" in line for line in process.stdout), "what came after it"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (130, b"")
    followed = begin(hub, "server", "logs", "cli-followed", "-f", "-n", "1")
    assert followed.stdout is not None and followed.stdout.readline()
    run(hub, "server", "remove", "cli-followed")
    _, error = followed.communicate(timeout=20)
    assert (followed.returncode, error) == (0, b"The log ended: server_deleted\n")


@pytest.mark.requirement("cli.explain", "logs.story")
def test_what_happened_to_a_call_is_explained(hub: RunningHub) -> None:
    request_id = read(hub, "call", "weather-server", "add", "a=20", "b=22")["metadata"]["request_id"]
    story = read(hub, "explain", request_id)
    assert (story["request_id"], story["status"], story["tool"], story["scope"]) == (request_id, "ok", "add", "execute:tools")
    assert (story["server"]["slug"], story["error"]) == ("weather-server", None)
    told = run(hub, "explain", request_id).stdout
    assert f"request_id: {request_id}\n" in told and "  slug: weather-server\n" in told
    refused = run(hub, "call", "weather-server", "nonsense", code=5).stderr
    [named] = [line.removeprefix("  request: ") for line in refused.splitlines() if line.startswith("  request: ")]
    assert read(hub, "explain", named)["error"]["code"] == "TOOL_NOT_FOUND"


@pytest.mark.requirement("cli.client-config")
@pytest.mark.parametrize("client", ["claude", "claude-code", "cursor", "vscode", "windsurf", "cline", "gemini", "codex", "stdio"])
def test_a_snippet_leads_to_the_hub_and_holds_no_key(hub: RunningHub, client: str) -> None:
    printed = run(hub, "client-config", client)
    assert hub.url in printed.stdout and hub.key not in printed.stdout + printed.stderr
    assert client == "codex" or "plughub" in str(json.loads(printed.stdout))
    assert read(hub, "client-config", client)["client"] == client
    run(hub, "client-config", "nonsense", code=2)


@pytest.mark.requirement("cli.client-config")
def test_a_snippet_for_a_client_of_commands_keeps_the_key_out_of_its_arguments(hub: RunningHub) -> None:
    environ = environment({"PLUGHUB_URL": hub.url, "PLUGHUB_KEY_FILE": str(hub.key_file)})
    [entry] = json.loads(run(hub, "client-config", "claude", environ=environ).stdout)["mcpServers"].values()
    assert Path(entry["command"]).is_absolute() and entry["args"] == ["connect"]
    assert entry["env"] == {"PLUGHUB_URL": hub.url, "PLUGHUB_KEY_FILE": str(hub.key_file)}


@pytest.mark.requirement("cli.quick-help")
def test_help_comes_at_once() -> None:
    subprocess.run([sys.executable, "-m", "compileall", "-q", "src/plughub/cli"], check=True)
    times = []
    for words in (["--help"], ["server", "--help"], ["server", "add", "--help"], ["call", "--help"], ["--help"]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([PLUGHUB, *words], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # Of the processor, not of the wall: it is what the command takes where nothing else runs.
    assert max(times) < HELP_S, times
    loaded = "import sys, plughub.cli; print(sorted({'httpx2', 'fastapi', 'sqlalchemy', 'uvicorn', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.requirement("cli.ends-quietly")
def test_ctrl_c_ends_a_command_quietly(hub: RunningHub) -> None:
    process = begin(hub, "call", "weather-server", "generate_text", "prompt=a long evening")
    assert process.stdout is not None and process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in error and b"Abort" not in error


@pytest.mark.requirement("cli.ends-quietly")
def test_a_reader_that_leaves_is_no_trace(hub: RunningHub) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([PLUGHUB, "export"], stdout=writing, stderr=subprocess.PIPE, env=settings(hub), timeout=20, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.requirement("cli.servers")
def test_on_a_terminal_a_stranger_s_text_is_shown_without_control_characters(hub: RunningHub) -> None:
    main, terminal = pty.openpty()
    done = subprocess.run(
        [PLUGHUB, "call", "weather-server", "echo", '{"text":"a\\u001b]0;title\\u0007b"}'], stdout=terminal, env=settings(hub), timeout=20
    )
    os.close(terminal)
    shown = os.read(main, 10_000)
    os.close(main)
    assert done.returncode == 0
    assert shown.decode() == "a\ufffd]0;title\ufffdb\r\n"


@pytest.mark.requirement("events.command-line")
def test_events_are_printed_oldest_first_and_followed_from_there(hub: RunningHub) -> None:
    off = {"type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/mcp"}, "enabled": False}
    for name in ("one", "two"):
        assert hub.api("POST", "/api/servers", {"name": name, **off}).status_code == 201
    printed = run(hub, "events", "-n", "2", "-t", "mcp.created").stdout.splitlines()
    assert [line.split("  ")[1:] for line in printed] == [["server.created", "one", "one"], ["server.created", "two", "two"]]
    following = begin(hub, "--json", "events", "-f", "-n", "1", "-t", "server.created", "-t", "server.deleted")
    assert following.stdout is not None
    assert json.loads(following.stdout.readline())["data"]["slug"] == "two", "it has read the log, and goes on from there"
    assert hub.api("POST", "/api/servers", {"name": "three", **off}).status_code == 201
    assert json.loads(following.stdout.readline())["data"]["slug"] == "three"
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=10)
    assert "names no event" in run(hub, "events", "-t", "nope", code=2).stderr
    for slug in ("one", "two", "three"):
        run(hub, "server", "remove", slug)
