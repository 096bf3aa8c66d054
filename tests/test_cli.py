"""The command line, as a process of its own: what it refuses, in words."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from sqlalchemy import text

from plughub import __version__
from plughub.data_dir import DataDir, load_secrets
from plughub.db.audit import Chain
from plughub.db.engine import Database, database_url
from plughub.db.migrate import HEAD, migrate
from plughub.first_start import prepare
from plughub.kit.clock import SystemClock
from plughub.settings import Settings

PLUGHUB = str(Path(sys.executable).parent / "plughub")


def plughub(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PLUGHUB_")}
    return subprocess.run([PLUGHUB, *words], capture_output=True, text=True, timeout=30, env=environ | settings, check=False)


def refused(answer: subprocess.CompletedProcess[str]) -> str:
    """The words of a refusal: one message on stderr, no trace, exit code 2."""
    assert answer.returncode == 2, answer.stderr
    assert answer.stdout == ""
    assert answer.stderr.startswith("plughub: ") and "Traceback" not in answer.stderr
    return answer.stderr


@pytest.mark.requirement("run.refuses-public-bind-without-tls")
@pytest.mark.parametrize("host", ["0.0.0.0", "hub.example.com"])
def test_an_address_for_others_needs_tls_or_a_word(host: str, tmp_path: Path) -> None:
    words = refused(plughub("serve", "--host", host, "--port", "0", "--data-dir", str(tmp_path / "data")))
    assert host in words and "--insecure-http" in words
    assert not (tmp_path / "data").exists()


@pytest.mark.requirement("run.refuses-public-bind-without-tls")
def test_behind_a_trusted_proxy_an_address_for_others_is_served(tmp_path: Path) -> None:
    words = refused(
        plughub("serve", "--host", "192.0.2.1", "--port", "0", "--data-dir", str(tmp_path), PLUGHUB_TRUSTED_PROXIES="192.0.2.0/24")
    )
    assert "Cannot listen on 192.0.2.1" in words, "it was tried"
    wrong = refused(plughub("serve", "--data-dir", str(tmp_path), PLUGHUB_TRUSTED_PROXIES="the proxy"))
    assert "PLUGHUB_TRUSTED_PROXIES" in wrong


@pytest.mark.requirement("run.options-and-environment")
def test_every_wrong_setting_is_named(tmp_path: Path) -> None:
    words = refused(
        plughub(
            "serve",
            "--data-dir",
            str(tmp_path / "data"),
            PLUGHUB_PORT="http",
            PLUGHUB_LOG_LEVEL="loud",
            PLUGHUB_MAX_BODY_BYTES="1",
            PLUGHUB_ALLOW_PRIVATE_ADDRESSES="10.0.0.0/99",
        )
    )
    for name in ("PLUGHUB_PORT", "PLUGHUB_LOG_LEVEL", "PLUGHUB_MAX_BODY_BYTES", "PLUGHUB_ALLOW_PRIVATE_ADDRESSES"):
        assert name in words


@pytest.mark.requirement("run.options-and-environment")
def test_the_command_line_wins_over_the_environment(tmp_path: Path) -> None:
    words = refused(plughub("serve", "--host", "192.0.2.7", PLUGHUB_HOST="192.0.2.8", PLUGHUB_DATA_DIR=str(tmp_path)))
    assert "192.0.2.7" in words and "192.0.2.8" not in words


@pytest.mark.requirement("run.second-process-refused")
def test_a_second_process_on_the_same_data_is_refused(tmp_path: Path) -> None:
    first = DataDir(tmp_path / "data")
    first.open()
    try:
        words = refused(plughub("serve", "--port", "0", "--data-dir", str(tmp_path / "data")))
        assert str(tmp_path / "data") in words and f"process {os.getpid()}" in words and "--data-dir" in words
    finally:
        first.close()


def test_secrets_that_are_broken_are_no_reason_for_new_ones(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    file.write_text('{"peppers":{},"seals":{}}')
    words = refused(plughub("serve", "--port", "0", "--data-dir", str(tmp_path)))
    assert str(file) in words
    assert file.read_text() == '{"peppers":{},"seals":{}}'


@pytest.mark.requirement("run.lost-secrets-refused")
def test_lost_or_exchanged_secrets_end_the_start_in_a_sentence(tmp_path: Path) -> None:
    file, other = tmp_path / "secrets.json", tmp_path / "other.json"
    secrets = load_secrets(file)

    async def fill() -> None:
        database = Database(database_url(Settings(data_dir=tmp_path)), SystemClock(), Chain(secrets.peppers.ring))
        await migrate(database)
        await prepare(database, secrets)
        await database.aclose()

    anyio.run(fill)
    load_secrets(other)
    for lost in (other, file):
        if lost == file:
            file.unlink()
        words = refused(plughub("serve", "--port", "0", "--data-dir", str(tmp_path), PLUGHUB_SECRETS_FILE=str(lost)))
        assert str(lost) in words and "backup" in words and words.count("\n") == 1


def test_a_database_of_a_newer_version_ends_the_start_in_a_sentence(tmp_path: Path) -> None:
    async def make() -> None:
        database = Database(database_url(Settings(data_dir=tmp_path)), SystemClock())
        await migrate(database)
        async with database.unit_of_work() as uow:
            await uow.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        await database.aclose()

    anyio.run(make)
    assert "9999" in refused(plughub("serve", "--port", "0", "--data-dir", str(tmp_path)))


@pytest.mark.requirement("run.failed-starts-in-a-sentence")
def test_a_broken_database_file_ends_the_start_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "plughub.db").write_bytes(b"not a database, but long enough to be looked at" * 10)
    words = refused(plughub("serve", "--port", "0", "--data-dir", str(tmp_path)))
    assert str(tmp_path / "plughub.db") in words and "not a database" in words and words.count("\n") == 1


@pytest.mark.requirement("run.failed-starts-in-a-sentence")
@pytest.mark.parametrize("path", ["hub", "hub?password=sesame", "hub?nosuch=sesame"])
def test_an_unreachable_database_ends_the_start_in_a_sentence_without_its_password(path: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
        url = f"postgresql://user:sesame@{place}/{path}"
        words = refused(plughub("serve", "--port", "0", "--data-dir", str(tmp_path), PLUGHUB_DATABASE_URL=url))
    assert place in words and "sesame" not in words and words.count("\n") == 1


@pytest.mark.requirement("run.failed-starts-in-a-sentence")
def test_a_host_without_an_address_ends_the_start_in_a_sentence(tmp_path: Path) -> None:
    words = refused(plughub("serve", "--host", "nosuch.invalid", "--insecure-http", "--port", "0", "--data-dir", str(tmp_path)))
    assert "nosuch.invalid" in words and words.count("\n") == 1


@pytest.mark.requirement("run.operator-key-never-lost")
def test_a_key_file_that_cannot_be_written_ends_the_first_start_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for place in ("folder", "file/key", "/proc/nosuch/key"):
        words = refused(plughub("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), "--operator-key-file", str(tmp_path / place)))
        assert str(tmp_path / place) in words and words.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = refused(plughub("serve", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(tmp_path)))
        assert f"port {port}" in words


def test_help_and_version() -> None:
    shown = plughub("--help")
    assert shown.returncode == 0 and "serve" in shown.stdout
    assert plughub("--version").stdout == f"plughub {__version__}\n"
    assert "--operator-key-file" in plughub("serve", "--help").stdout


@pytest.mark.requirement("cli.migrate")
def test_migrate_makes_the_schema_and_finds_it_made(tmp_path: Path) -> None:
    first = plughub("migrate", "--data-dir", str(tmp_path / "data"))
    assert (first.returncode, first.stdout) == (0, f"The schema is {HEAD}; it was empty\n"), first.stderr
    assert (tmp_path / "data" / "plughub.db").stat().st_mode & 0o077 == 0
    again = plughub("migrate", PLUGHUB_DATA_DIR=str(tmp_path / "data"))
    assert (again.returncode, again.stdout) == (0, f"The schema is {HEAD}, as it was\n")


@pytest.mark.requirement("cli.migrate", "run.second-process-refused")
def test_migrate_is_refused_while_a_hub_has_the_data(tmp_path: Path) -> None:
    first = DataDir(tmp_path / "data")
    first.open()
    try:
        assert f"process {os.getpid()}" in refused(plughub("migrate", "--data-dir", str(tmp_path / "data")))
    finally:
        first.close()


@pytest.mark.requirement("cli.migrate", "run.failed-starts-in-a-sentence")
def test_migrate_says_in_a_sentence_what_is_wrong_with_the_database(tmp_path: Path) -> None:
    (tmp_path / "plughub.db").write_bytes(b"not a database, but long enough to be looked at" * 10)
    assert "not a database" in refused(plughub("migrate", "--data-dir", str(tmp_path)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"postgresql://user:sesame@127.0.0.1:{free.getsockname()[1]}/hub"
        words = refused(plughub("migrate", "--data-dir", str(tmp_path / "data"), "--database-url", url))
    assert "127.0.0.1" in words and "sesame" not in words
    assert "PLUGHUB_DATABASE_URL" in refused(plughub("migrate", "--data-dir", str(tmp_path / "data"), "--database-url", "nonsense"))


@pytest.mark.requirement("audit.command-line", "audit.tamper-evident")
def test_the_audit_is_verified_and_exported_from_the_command_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    secrets = load_secrets(data / "secrets.json")
    where = ("--data-dir", str(data))
    assert "no database" in refused(plughub("audit", "verify", *where))

    async def fill() -> None:
        database = Database(database_url(Settings(data_dir=data)), SystemClock(), Chain(secrets.peppers.ring))
        await migrate(database)
        await prepare(database, secrets)
        await database.aclose()

    async def change(statement: str) -> None:
        database = Database(database_url(Settings(data_dir=data)), SystemClock())
        async with database.unit_of_work() as uow:
            await uow.execute(text(statement))
        await database.aclose()

    anyio.run(fill)
    intact = plughub("audit", "verify", *where)
    assert (intact.returncode, intact.stdout.split()[0]) == (0, "intact"), intact.stderr
    organization, anchor = intact.stdout.split()[1], intact.stdout.split()[-1]
    assert plughub("audit", "verify", *where, "--anchor", anchor).returncode == 0
    exported = plughub("audit", "export", organization, *where)
    rows = [json.loads(line) for line in exported.stdout.splitlines()]
    assert [row["seq"] for row in rows] == [1, 2, 3, 4] and rows[0]["action"] == "organization.created"
    file = tmp_path / "audit.csv"
    assert plughub("audit", "export", organization, *where, "--format", "csv", "-o", str(file)).returncode == 0
    assert len(file.read_text().splitlines()) == 5 and file.stat().st_mode & 0o077 == 0

    anyio.run(change, "UPDATE audit SET address = '192.0.2.1' WHERE seq = 3")
    broken = plughub("audit", "verify", *where)
    assert broken.returncode == 1 and "row 3: changed" in broken.stdout and broken.stderr == ""
    told = json.loads(plughub("--json", "audit", "verify", *where).stdout)
    assert [(one["intact"], one["rows"], one["broken_at"]) for one in told] == [(False, 2, 3)]
    assert "no anchor" in refused(plughub("audit", "verify", *where, "--anchor", "x"))
    assert "no format" in refused(plughub("audit", "export", organization, *where, "--format", "xml"))
    assert "no id" in refused(plughub("audit", "export", "nobody", *where))
    (data / "secrets.json").unlink()
    assert "secrets file" in refused(plughub("audit", "verify", *where))
    assert not (data / "secrets.json").exists()
    anyio.run(change, "UPDATE alembic_version SET version_num = '0003'")
    assert "migrate" in refused(plughub("audit", "export", organization, *where))


def test_serving_an_embedded_database_loads_neither_colours_nor_the_other_dialect() -> None:
    code = (
        "import sys; from plughub.cli import local; local._load_plain_logs(); import plughub.serve;"
        " print([name for name in ('rich', 'pygments', 'sqlalchemy.dialects.postgresql') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
