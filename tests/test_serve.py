"""Listening sockets, and what the screen says."""

import re
import socket
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from plughub.db.engine import DATABASE_FILE
from plughub.db.migrate import HEAD
from plughub.first_start import FirstStart
from plughub.serve import CannotServe, banner, base_url, database_name, hand_over, listen
from plughub.settings import Settings

MADE_APART = """
import asyncio, sys
from pathlib import Path
from plughub.serve import upgrade, upgrade_apart
from plughub.settings import Settings
settings = Settings(data_dir=Path(sys.argv[1]))
upgrade_apart(settings)
print("alembic" in sys.modules, *upgrade(settings))
"""


def made_apart(folder: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", MADE_APART, str(folder)], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.split() if done.returncode == 0 else [done.stderr.splitlines()[-1]]


@pytest.mark.requirement("data.migrations-from-empty")
def test_a_new_database_is_made_without_a_trace_in_the_hubs_own_process(tmp_path: Path) -> None:
    assert made_apart(tmp_path) == ["False", HEAD, HEAD]


def test_a_database_that_cannot_be_made_apart_is_left_to_whom_can_say_why(tmp_path: Path) -> None:
    (tmp_path / DATABASE_FILE).mkdir()
    assert "cannot be used" in made_apart(tmp_path)[0]


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.requirement("run.binds-both-loopbacks")
def test_localhost_is_both_loopback_addresses_on_one_port() -> None:
    sockets = listen("localhost", 0)
    try:
        names = [bound.getsockname()[:2] for bound in sockets]
        assert [address for address, _ in names] == (["127.0.0.1", "::1"] if has_ipv6() else ["127.0.0.1"])
        assert len({port for _, port in names}) == 1 and names[0][1] > 0
    finally:
        for bound in sockets:
            bound.close()
    assert (Settings().host, Settings().port) == ("localhost", 12005)
    assert base_url(Settings(), 12005) == "http://localhost:12005"


@pytest.mark.requirement("run.no-half-of-localhost")
@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_localhost_is_refused_when_somebody_else_has_its_ipv6_half() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotServe, match=rf"::1 port {port}"):
            listen("localhost", port)
    with socket.create_server(("127.0.0.1", port)):  # the IPv4 half was let go
        pass


def test_a_name_without_an_address_is_named() -> None:
    for name in ("nosuch.invalid", "a" * 70 + ".invalid", "..", "bad name"):
        with pytest.raises(CannotServe, match=re.escape(name)) as caught:
            listen(name, 0)
        assert "Unknown error" not in str(caught.value)


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(CannotServe, match=r"192\.0\.2\.1 port 0"):
        listen("192.0.2.1", 0)


def test_the_address_is_told_as_clients_write_it() -> None:
    assert base_url(Settings(host="::1"), 5) == "http://[::1]:5"
    assert base_url(Settings(public_url="https://hub.example.com/"), 5) == "https://hub.example.com"


@pytest.mark.requirement("run.stdio-is-announced-unsandboxed", "run.operator-key-shown-once")
def test_the_key_is_shown_once_or_not_at_all_when_it_is_in_a_file(tmp_path) -> None:
    file = tmp_path / "key"
    first = "\n".join(banner(FirstStart("pk_live_ph_secret", "demo-id"), "http://x", None))
    assert "pk_live_ph_secret" in first and "/api/servers/demo-id/tools/get_weather/execute" in first
    later = "\n".join(banner(FirstStart("pk_live_ph_secret", "demo-id"), "http://x", file))
    assert "pk_live_ph_secret" not in later and str(file) in later
    again = "\n".join(banner(FirstStart(None, None), "http://x", None))
    assert "<your API key>" in again and "get_weather" not in again
    assert all("without a sandbox" in text for text in (first, later, again))


def test_the_key_goes_to_the_screen_when_its_file_cannot_be_written(tmp_path: Path) -> None:
    out = StringIO()
    settings = Settings(data_dir=tmp_path, operator_key_file=tmp_path)  # a folder
    hand_over(FirstStart("pk_live_ph_secret", "demo-id"), "http://x", settings, out)
    assert "pk_live_ph_secret" in out.getvalue() and f"could not be written to {tmp_path}" in out.getvalue()


@pytest.mark.parametrize("url", ["postgresql://u:pa@h:5432x/db", "postgresql://u:pa@ss:word@h:x/db", "nonsense", "mysql://u:pass@h/db"])
def test_an_address_that_is_no_database_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(CannotServe, match="PLUGHUB_DATABASE_URL") as caught:
        database_name(Settings(database_url=url))
    assert "pa" not in str(caught.value).replace("password", "")
