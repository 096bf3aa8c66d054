"""Every sample of the three documents runs against a live hub with nothing changed but host, key and placeholders, or says why it waits."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.contract.cases import differences
from tests.docs import samples
from tests.docs.samples import (
    MANIFEST,
    ROWS,
    SNIPPETS,
    World,
    documented_json,
    program,
    run_http,
    run_js,
    run_python,
    run_sh,
    same_shape,
    sample,
)
from tests.docs.snippets import Snippet, complaints
from tests.flows.packages import Packages, npm_folder
from tests.flows.person import SETTINGS, Person
from tests.flows.running_hub import RunningHub

DOCUMENTS: dict[str, list[list[str]]] = json.loads((Path(__file__).parent / "documents.json").read_text())
LIMITER = ("limiter@4.1.0",)
# A burst of sixty is refilled by one a second.
BURST = {"burst": 60}
# What a sample of its own kind needs is in a test of its own.
PLAIN = sorted(
    name
    for name in {entry.get("file", "") for entry in MANIFEST} - {"oauth-token.sh"}
    if not name.endswith(".json") and (SNIPPETS / f"{name.rpartition('.')[0]}.shown.json").exists()
)
runs = pytest.mark.requirement("around.documents-samples")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub of a person, whose operator refuses test keys, as the documents' example of an error has it."""
    with RunningHub(tmp_path_factory.mktemp("samples") / "data", settings={**SETTINGS, "PLUGHUB_REFUSE_TEST_KEYS": "true"}) as running:
        yield running


@pytest.fixture
def world(hub: RunningHub) -> World:
    return World(hub)


def needs(name: str) -> None:
    if (row := samples.missing(name)) is not None:
        pytest.skip(f"needs {row}")


@runs
def test_every_sample_of_the_documents_has_its_file_or_its_reason() -> None:
    listed: dict[str, list[str]] = {}
    for entry in MANIFEST:
        listed.setdefault(entry["document"], []).append(entry["heading"])
        assert ("file" in entry) != ("waits" in entry), entry
    assert listed == {document: [heading for heading, _ in found] for document, found in DOCUMENTS.items()}


@runs
def test_a_file_holds_the_sample_that_it_stands_for() -> None:
    marks = [mark for found in DOCUMENTS.values() for _, mark in found]
    for entry, mark in zip(MANIFEST, marks, strict=True):
        assert "file" not in entry or mark in sample(entry["file"]), entry


def test_every_file_of_a_sample_is_in_the_manifest() -> None:
    files = {entry["file"] for entry in MANIFEST if "file" in entry}
    beside = {"manifest.toml", "placeholders.json", "README.md"}
    for path in SNIPPETS.iterdir():
        stem = re.sub(r"\.(before|rest|shown)\.\w+$", "", path.name)
        assert path.name in files | beside or any(name.rpartition(".")[0] == stem for name in files), path.name


@runs
@pytest.mark.parametrize("route", [entry["file"] for entry in MANIFEST if entry.get("file", "").endswith(".http")])
def test_every_request_line_is_a_route(route: str) -> None:
    needs(route)
    method, path = sample(route).split("\n")[0].partition("?")[0].split()
    path = re.sub(r"\{tool_name\}", "{tool}", path)
    assert f"{method} {path}" in ROWS or f"{method} {path.replace('uuid', 'server_uuid')}" in ROWS


@runs
@pytest.mark.parametrize("name", PLAIN)
def test_a_sample_prints_what_is_shown(world: World, packages: Packages, tmp_path: Path, name: str) -> None:
    needs(name)
    own = {"PLUGHUB_SERVER": world.server()} if sample(name).startswith(("PUT", "DELETE")) else {}
    shown = (SNIPPETS / f"{name.rpartition('.')[0]}.shown.json").read_text()
    output = json.dumps(_answer(name, world, own, packages, tmp_path))
    assert complaints(Snippet("json", "", shown, "json"), output) == []


def _answer(name: str, world: World, own: dict[str, str], packages: Packages, tmp_path: Path) -> Any:
    if name.endswith(".js"):
        env = {"API_KEY": world.key(rate_limit=BURST)["key"]}
        return run_js(world.filled(program(name), own), packages, tmp_path, env).json()
    text = world.filled(sample(name), own)
    if name.endswith(".py"):
        return run_python(text, tmp_path).json()
    if name.endswith(".http"):
        return run_http(text, world.hub)
    if name.endswith(".txt"):
        header, _, value = text.strip().partition(": ")
        return world.hub.api("GET", "/api/servers", key="", headers={header: value}).json()
    return run_sh(text).json()


@runs
@pytest.mark.parametrize("name", ["list-servers", "list-tools", "search-registry"])
def test_a_documented_answer_has_its_members(world: World, name: str) -> None:
    needs(f"{name}.json")
    assert same_shape(documented_json(f"{name}.json"), run_http(world.filled(sample(f"{name}.http")), world.hub)) == []


@runs
@pytest.mark.requirement("oauth.documented-flow")
def test_the_documented_authorization_goes_through(world: World) -> None:
    client = samples.client_of(world)
    url = re.sub(r"\n\s*", "", world.filled(sample("oauth-authorize.txt"), client))
    with closing(Person(world.hub)) as person:
        came_back = person.allow(url)
    code = parse_qs(urlsplit(came_back).query)["code"][0]
    expected = world.filled(sample("oauth-callback.txt"), {**client, "PLUGHUB_CODE": code}).removeprefix("GET ").strip()
    assert came_back.startswith(expected)
    printed = run_sh(world.filled(sample("oauth-token.sh"), {**client, "PLUGHUB_CODE": code})).out
    assert complaints(Snippet("sh", "", sample("oauth-token.shown.json"), "json"), printed) == []
    assert world.hub.api("GET", "/api/servers", key=json.loads(printed)["access_token"]).status_code == 200


@runs
@pytest.mark.parametrize(
    ("env", "reads"), [("pluggedin.env", "key-of-the-environment.js"), ("plexmcp.env", "plexmcp-key-of-the-environment.js")]
)
def test_a_key_comes_from_the_environment(world: World, packages: Packages, tmp_path: Path, env: str, reads: str) -> None:
    file = tmp_path / ".env"
    file.write_text(world.filled(sample(env)))
    asks = f"const answer = await fetch('{world.hub.url}/api/servers', {{ headers: {{ Authorization: `Bearer ${{apiKey}}` }} }});"
    done = run_js(f"{sample(reads)}{asks}\nconsole.log(answer.status);", packages, tmp_path, options=(f"--env-file={file}",))
    assert done.json() == 200


@runs
@pytest.mark.requirement("keys.test-keys-can-be-refused", "errors.key-prefix-in-401")
def test_a_refused_test_key_answers_as_the_documents_show(world: World) -> None:
    answer = world.hub.api("GET", "/api/servers", key=world.key(environment="test")["key"])
    assert (answer.status_code, differences(documented_json("refused-test-key.json"), answer.json())) == (401, [])


@runs
def test_a_missing_field_answers_as_the_documents_show(world: World) -> None:
    answer = world.hub.api("POST", "/api/servers", {"type": "STDIO", "config": {"command": "true"}})
    assert (answer.status_code, differences(documented_json("required-field.json"), answer.json())) == (400, [])


@runs
def test_errors_are_told_apart_by_their_code(world: World, packages: Packages, tmp_path: Path) -> None:
    def run(key: str) -> tuple[str, str]:
        done = run_js(world.filled(program("errors-by-code.js")), packages, tmp_path, {"API_KEY": key})
        return done.out.strip(), done.err

    limited, revoked = world.key(rate_limit={"burst": 1}), world.key()
    assert world.hub.api("GET", "/api/servers", key=limited["key"]).status_code == 200
    assert world.hub.api("DELETE", f"/api/auth/keys/{revoked['id']}").status_code == 200
    assert run(world.hub.key) == run("nobody") == ("", ""), "401 is left to the reader"
    assert run(limited["key"]) == ("would wait 4000 ms", "")
    assert run(revoked["key"])[1].startswith("API request failed: Error: API key has been revoked")


@runs
def test_the_sample_that_reads_a_body_twice_says_so_itself(world: World, packages: Packages, tmp_path: Path) -> None:
    """After its own `switch` it reads the body of an error once more; the hub cannot help that. What it prints first is the hub's."""

    def run(config: Any, **given: str) -> tuple[Any, list[str]]:
        text = world.filled(program("errors-by-status.js"), given)
        done = run_js(text, packages, tmp_path, {"SERVER_CONFIG": json.dumps(config)})
        return done.json()["data"], [line for line in done.err.splitlines() if not line.startswith(" ")]

    good = {"name": "New Server", "type": "STDIO", "config": {"command": "true"}}
    data, told = run(good)
    assert (data["name"], told) == ("New Server", [])
    twice = "Network error: TypeError: Body is unusable: Body has already been read"
    assert run({**good, "name": None}) == (None, ["Invalid request: The 'name' field is invalid: Input should be a valid string", twice])
    del good["name"]
    assert run(good) == (None, ["Invalid request: The 'name' field is required", twice])
    assert run(good, PLUGHUB_KEY="nobody") == (None, ["Authentication failed", twice])
    limited = world.key(rate_limit={"burst": 1})["key"]
    assert world.hub.api("GET", "/api/servers", key=limited).status_code == 200
    _, [refused, also] = run(good, PLUGHUB_KEY=limited)
    assert re.fullmatch(r"Rate limited, retry after: [1-9]\d?", refused) and also == twice


@runs
def test_the_headers_of_limits_are_numbers(world: World) -> None:
    answer = world.hub.api("GET", "/api/servers")
    for line in sample("rate-limit-headers.txt").splitlines():
        assert answer.headers[line.partition(":")[0]].isdecimal(), line


@runs
def test_the_documents_own_limiter_goes_with_the_hub(world: World, packages: Packages) -> None:
    asks = (
        f"console.log((await fetch('{world.hub.url}/api/servers', {{ headers: {{ Authorization: 'Bearer {world.hub.key}' }} }})).status);"
    )
    assert run_js(sample("rate-limiter.js") + asks, packages, npm_folder("limiter", LIMITER)).json() == 200


@runs
@pytest.mark.requirement("keys.x-api-key")
def test_the_old_ways_of_the_migration_answer_as_the_new_ones(world: World) -> None:
    text = sample("migration.txt")
    names = re.findall(r"headers: \{ '([\w-]+)': ", text)
    old, new = (
        world.hub.api("GET", "/api/servers", key="", headers={name: ("" if "API" in name else "Bearer ") + world.hub.key}) for name in names
    )
    assert old.json() == new.json() and "deprecation" in old.headers and "deprecation" not in new.headers
    before, now = (world.hub.api("GET", path) for path in re.findall(r"^/api\S+", text, re.MULTILINE))
    assert before.json() == now.json() and "deprecation" in before.headers and "deprecation" not in now.headers


@runs
def test_permissions_are_all_mcps_or_those_that_are_named(world: World) -> None:
    names = [line.removeprefix("Permissions: ") for line in sample("permissions.txt").splitlines() if line]
    ids = {name: world.server(name) for name in names[1].split(", ")}
    for permissions, allowed in (("*", 200), (list(ids.values()), 403)):
        made = world.hub.api("POST", "/v1/api-keys", {"name": "p", "permissions": {"mcps": permissions}})
        assert made.status_code == 201, made.text
        key = made.json()["data"]["key"]
        assert world.hub.api("GET", f"/v1/mcps/{world.hub.demo()['uuid']}", key=key).status_code == allowed
        assert all(world.hub.api("GET", f"/v1/mcps/{uuid}", key=key).status_code == 200 for uuid in ids.values())


@runs
@pytest.mark.requirement("errors.v1-shape")
def test_the_errors_of_the_troubleshooting_page_are_the_hubs(world: World) -> None:
    def printed(answer: httpx2.Response) -> str:
        return f"Error: {answer.status_code} {answer.reason_phrase} - {answer.json()['error']['message']}"

    ask = {"mcp_id": world.hub.demo()["uuid"], "tool": "get_weather", "arguments": {"location": "Rome"}}
    answers = [world.hub.api("POST", "/v1/mcp/invoke", ask, key=key) for key in ("", world.key(servers=[])["key"])]
    assert [printed(answer) for answer in answers] == sample("plexmcp-errors.txt").splitlines()


@runs
def test_the_collection_for_postman_signs_in_as_documented(world: World) -> None:
    wanted = documented_json("postman.json")
    wanted["info"]["name"] = {"$any": "text"}
    assert differences(wanted, world.hub.api("GET", "/api/postman.json", key="").json()) == []


@runs
def test_live_updates_are_printed(world: World, packages: Packages, tmp_path: Path) -> None:
    needs("server-events.js")
    file = tmp_path / "events.mjs"
    file.write_text(world.filled(sample("server-events.js")))
    command = [packages.node, "--no-warnings", "--experimental-eventsource", str(file)]
    over = threading.Event()

    def call() -> None:
        # A call before the stream is open it does not hear.
        while not over.wait(0.2):
            world.hub.execute(world.hub.demo(), "echo", {"text": "hello"})

    calling = threading.Thread(target=call)
    calling.start()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            seen: set[str] = set()
            while len(seen) < 2:
                seen |= {line.partition(":")[0] for line in _lines_until(process.stdout, "}")} & {"Server event", "Tool result"}
        finally:
            over.set()
            process.kill()
            calling.join()


def _lines_until(stream: Any, end: str) -> Iterator[str]:
    for line in stream:
        yield line
        if line.rstrip() == end:
            return
