"""The conformance suite against a server direct and through the hub, check by check.

    make conformance
    make conformance ARGS="--only http-2026 --only client-2025"

Everything that ran is kept in build/conformance/. The exit code is 1 when a check differs that known_differences.toml does not account for,
when an entry there no longer differs, or when the server itself fails a scored scenario.
"""

import argparse
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from tests.conformance import compare
from tests.conformance.compare import Difference, Results
from tests.conformance.shim import Shim
from tests.conformance.suite import LEGACY, MODERN, Suite
from tests.flows.packages import ROOT
from tests.flows.person import SETTINGS, Person
from tests.flows.running_hub import Json, RunningHub, environment

OUT = ROOT / "build" / "conformance"
KNOWN = Path(__file__).with_name("known_differences.toml")
FIXTURE = [sys.executable, "-m", "tests.conformance.fixture_server"]
FIXTURE_START_S = 30
# For everything; what is not run by then counts as absent.
LIMIT_S = 330
SUCCESS = "SUCCESS"
# Run at both revisions, though neither requires it.
CLIENT_EXTRA = "json-schema-2020-12-preservation"


@dataclass(frozen=True)
class Way:
    """A row of the table: how the hub reaches a server of which era, and what the client speaks."""

    name: str
    revision: str
    transport: str
    era: str = "both"


WAYS = (
    Way("http-2026", MODERN, "http"),
    Way("http-2025", LEGACY, "http"),
    Way("stdio-2026", MODERN, "stdio"),
    Way("stdio-2025", LEGACY, "stdio"),
    Way("http-2026-to-old-server", MODERN, "http", "legacy"),
    Way("http-2025-to-new-server", LEGACY, "http", "modern"),
    Way("stdio-2026-to-old-server", MODERN, "stdio", "legacy"),
    Way("stdio-2025-to-new-server", LEGACY, "stdio", "modern"),
    Way("client-2026", MODERN, "client"),
    Way("client-2025", LEGACY, "client"),
    Way("authorization", MODERN, "authorization"),
)


@dataclass
class Outcome:
    """What a way gave, with the direct run that it is measured against."""

    way: Way
    scored: list[str]
    direct: Results
    through: Results
    seconds: float
    found: list[Difference] = field(init=False)

    def __post_init__(self) -> None:
        self.found = compare.differences(self.way.name, self.direct, self.through)


@dataclass
class Bench:
    """The suite, a hub with a key, the shim in front of it, and the direct runs that were made already."""

    suite: Suite
    hub: RunningHub
    shim_url: str
    _direct: dict[str, Results] = field(default_factory=dict)

    def run(self, way: Way) -> Outcome:
        """A way; once more when it is not as it should be. The suite's own waits are short, and a busy machine fails them now and then:
        what differs twice differs."""
        ask = {"client": self.client, "authorization": self.authorization}.get(way.transport, self.server)
        outcome = ask(way)
        if complaints([outcome]):
            self._direct.clear()
            for name in (way.name, f"direct-{way.name}", f"direct-{way.revision}"):
                shutil.rmtree(OUT / name, ignore_errors=True)
            outcome = ask(way)
        return outcome

    def server(self, way: Way) -> Outcome:
        """A way of the server suite."""
        direct = self._direct_server(way.revision)
        began = time.monotonic()
        with self._registered(way) as uuid:
            through = self.suite.server(f"{self.shim_url}/servers/{uuid}/mcp", way.revision, OUT / way.name)
        return Outcome(way, self.suite.scored("server", way.revision), direct, through, time.monotonic() - began)

    def client(self, way: Way) -> Outcome:
        """A way of the client suite; direct and through the hub at once, since neither is in the other's way."""
        scored = self.suite.scored("client", way.revision)
        hub = {"CONFORMANCE_HUB": self.hub.url, "CONFORMANCE_KEY": self.hub.key}
        legs: list[tuple[Path, dict[str, str]]] = [(OUT / f"direct-{way.name}", {}), (OUT / way.name, hub)]
        began = time.monotonic()
        with ThreadPoolExecutor(len(legs)) as pool:
            for scenario in (*scored, CLIENT_EXTRA):
                running = [pool.submit(self.suite.client, scenario, way.revision, out, more) for out, more in legs]
                for one in running:
                    one.result()
        direct, through = (compare.read(out) for out, _ in legs)
        return Outcome(way, scored, direct, through, time.monotonic() - began)

    def authorization(self, way: Way) -> Outcome:
        """The hub's own authorization server: there is nothing to measure it against, so every check must be a success."""
        body = {"name": way.name, "redirect_uris": ["http://127.0.0.1/callback"], "confidential": False}
        app = self.hub.api("POST", "/api/oauth/apps", body).json()
        began = time.monotonic()
        with closing(Person(self.hub)) as person:
            through = self.suite.authorization(self.hub.url, app["client_id"], OUT / way.name, person.answer)
        wanted = dict.fromkeys(through, SUCCESS)
        scored = ["authorization-server-authorization-server-metadata-endpoint", "authorization-server-authorization-code-grant"]
        return Outcome(way, scored, wanted, through, time.monotonic() - began)

    def _direct_server(self, revision: str) -> Results:
        if revision not in self._direct:
            with fixture("both") as url:
                self._direct[revision] = self.suite.server(url, revision, OUT / f"direct-{revision}")
        return self._direct[revision]

    @contextmanager
    def _registered(self, way: Way) -> Iterator[str]:
        if way.transport == "http":
            with fixture(way.era) as url, self._server(way, "STREAMABLE_HTTP", {"url": url}) as uuid:
                yield uuid
        else:
            command = {"command": FIXTURE[0], "args": [*FIXTURE[1:], "--stdio", "--era", way.era], "env": {"PYTHONPATH": str(ROOT)}}
            with self._server(way, "STDIO", command) as uuid:
                yield uuid

    @contextmanager
    def _server(self, way: Way, kind: str, config: Json) -> Iterator[str]:
        made = self.hub.api("POST", "/api/servers", {"name": way.name, "type": kind, "config": config})
        assert made.status_code == 201, made.text
        uuid: str = made.json()["uuid"]
        # The start of the server is not what is measured.
        tools = self.hub.api("GET", f"/api/servers/{uuid}/tools")
        assert tools.status_code == 200, tools.text
        yield uuid
        self.hub.api("DELETE", f"/api/servers/{uuid}")


@contextmanager
def fixture(era: str) -> Iterator[str]:
    """The fixture server over HTTP; its address."""
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / f"fixture-{era}.log").open("a") as log:
        running = subprocess.Popen(
            [*FIXTURE, "--era", era], cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert running.stdout
            assert select.select([running.stdout], [], [], FIXTURE_START_S)[0], f"the fixture did not start within {FIXTURE_START_S} s"
            yield running.stdout.readline().strip()
        finally:
            running.kill()
            running.communicate()


@contextmanager
def bench() -> Iterator[Bench]:
    """A hub on an empty data directory, and the shim."""
    suite = Suite.installed(LIMIT_S)
    with tempfile.TemporaryDirectory() as folder, RunningHub(Path(folder) / "data", settings=SETTINGS) as hub:
        shim = Shim(hub.url, hub.key)
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(shim.listening()):
            yield Bench(suite, hub, shim.url)


def table(outcomes: list[Outcome]) -> str:
    """One row a way: scenarios passed of those scored, direct and through, and the checks that differ."""
    rows = [("way", "revision", "direct", "through", "checks", "differ", "unknown", "seconds")]
    known = compare.read_known(KNOWN)
    for outcome in outcomes:
        scores = [f"{compare.passed(results, outcome.scored)}/{len(outcome.scored)}" for results in (outcome.direct, outcome.through)]
        counts = [len(outcome.direct), len(outcome.found), len(compare.unknown(outcome.found, known))]
        rows.append((outcome.way.name, outcome.way.revision, *scores, *map(str, counts), f"{outcome.seconds:.0f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def complaints(outcomes: list[Outcome]) -> list[str]:
    """Why the run is not good, in lines."""
    known = compare.read_known(KNOWN)
    found = [difference for outcome in outcomes for difference in outcome.found]
    failed = [
        f"{outcome.way.name}: the fixture itself passes {compare.passed(outcome.direct, outcome.scored)} of {len(outcome.scored)}"
        for outcome in outcomes
        if compare.passed(outcome.direct, outcome.scored) < len(outcome.scored)
    ]
    unlisted = sorted({way for one in known for way in one.ways} - {way.name for way in WAYS})
    return [
        *map(str, compare.unknown(found, known)),
        *compare.stale(found, known, [outcome.way.name for outcome in outcomes]),
        *failed,
        *(f"{KNOWN.name}: no such way: {way}" for way in unlisted),
    ]


def main() -> int:
    """The command line; 0, or 1 when there is something to complain about."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[way.name for way in WAYS], help="a way; may be given several times")
    given = parser.parse_args()
    ways = [way for way in WAYS if given.only is None or way.name in given.only]
    shutil.rmtree(OUT, ignore_errors=True)
    outcomes = []
    with bench() as running:
        for way in ways:
            outcomes.append(running.run(way))
            sys.stdout.write(f"{table(outcomes[-1:]).splitlines()[1]}\n")
            sys.stdout.flush()
    bad = complaints(outcomes)
    text = "\n".join([*bad, "", table(outcomes), ""])
    (OUT / "report.txt").write_text(text)
    sys.stdout.write(f"\n{text}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
