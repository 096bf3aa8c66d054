"""The limits of taste, checked on the source text; each rule is first shown to catch a violation."""

import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.architecture import rules

# Each entry with its reason. The same files stand in pyproject.toml, [tool.ruff.lint.per-file-ignores].
LAZY_IMPORTS = {
    "src/plughub/cli/apply.py": "only apply and export --as hub pay for the parser of YAML",
    "src/plughub/cli/connect.py": "`plughub --help` and the other commands answer without loading the bridge",
    "src/plughub/cli/local.py": "`plughub --help` and a wrong option answer without loading the hub",
    "src/plughub/cli/audit.py": "`plughub --help` and a wrong option answer without loading the hub",
    "src/plughub/cli/screen.py": "only a command that prints a table pays for the tables of Rich",
    "src/plughub/cluster/forms.py": "a hub without Redis never loads its client, which costs memory",
    "src/plughub/cli/session.py": "`plughub --help` and a wrong option answer without loading an HTTP client",
    "src/plughub/dashboard/render.py": "Jinja2 is loaded by the first page: a hub that only keys use never needs it",
    "src/plughub/gateway/tracing.py": "OpenTelemetry is loaded when the operator has named a collector: with its exporter it costs 15 MB",
    "src/plughub/documents/reading.py": "the library for PDFs is loaded by the reader of a PDF alone, a program that lives for one file",
    "src/plughub/identity/mailer.py": "the modules for mail are loaded by the first mail: most hubs have no mail server",
    "src/plughub/identity/passwords.py": "argon2 is loaded by the first password: a hub that only keys use never pays for it",
    "src/plughub/identity/second_factor.py": "pyotp is loaded by the first code of an authenticator",
    "src/plughub/usage/sketch.py": "sketches are loaded by the first call that is counted: an idle hub does without them",
}
BROAD_EXCEPTS = {
    "src/plughub/door/dispatch.py": "the error middleware: whatever it is, the caller gets a 500 with a request id",
    "src/plughub/upstream/supervisor.py": "a start that fails in a way nobody foresaw is a status error, not `connecting` for ever",
}
# A function there is a list of tables, not logic.
LONG = ("src/plughub/db/migrations/versions/",)
# Tests that have to wait for the wall clock.
SLEEPING_TESTS: dict[str, str] = {}

ALL = ("src", "tests", "benchmarks", "docs")


def outside(found: Iterable[str], allowed: Iterable[str]) -> list[str]:
    """Complaints about files that are not on the list."""
    return [line for line in found if line.split(":")[0] not in set(allowed)]


def stale(found: Iterable[str], allowed: Iterable[str]) -> set[str]:
    """Entries of the list that nothing needs any more."""
    return set(allowed) - {line.split(":")[0] for line in found}


@pytest.mark.requirement("house.limits-of-taste")
def test_files_have_at_most_600_lines_and_functions_80() -> None:
    found = rules.complaints(rules.python_files(*ALL), rules.too_long)
    assert [line for line in found if not line.startswith(LONG)] == []


def test_a_long_file_and_a_long_function_are_caught() -> None:
    assert rules.too_long("x = 1\n" * 601) == ["1: 601 lines, at most 600"]
    assert rules.too_long("async def f():\n" + "    x = 1\n" * 80) == ["1: f has 81 lines, at most 80"]
    assert rules.too_long("def f():\n" + "    x = 1\n" * 79) == []


@pytest.mark.requirement("house.limits-of-taste")
def test_imports_inside_functions_are_on_the_list() -> None:
    found = rules.complaints(rules.python_files(*ALL), rules.inner_imports)
    assert outside(found, LAZY_IMPORTS) == []
    assert stale(found, LAZY_IMPORTS) == set()


def test_an_import_inside_a_function_is_caught() -> None:
    text = "import a\nclass C:\n    def f(self):\n        if self:\n            from b import c\n"
    assert rules.inner_imports(text) == ["5: import inside a function"]


@pytest.mark.requirement("house.limits-of-taste")
def test_broad_excepts_are_on_the_list() -> None:
    found = rules.complaints(rules.python_files("src", "benchmarks", "docs"), rules.broad_excepts)
    assert outside(found, BROAD_EXCEPTS) == []
    assert stale(found, BROAD_EXCEPTS) == set()


@pytest.mark.parametrize("clause", ["except", "except Exception", "except BaseException as e", "except (OSError, Exception)"])
def test_a_broad_except_is_caught(clause: str) -> None:
    assert rules.broad_excepts(f"try:\n    x()\n{clause}:\n    pass\n") == ["3: broad except"]


def test_a_narrow_except_and_one_that_raises_again_are_not_caught() -> None:
    assert rules.broad_excepts("try:\n    x()\nexcept (OSError, ValueError):\n    pass\n") == []
    assert rules.broad_excepts("try:\n    x()\nexcept BaseException:\n    close()\n    raise\n") == []


@pytest.mark.parametrize(("code", "listed"), [("PLC0415", LAZY_IMPORTS), ("BLE001", BROAD_EXCEPTS)])
def test_the_linter_and_this_file_allow_the_same(code: str, listed: dict[str, str]) -> None:
    config = tomllib.loads((rules.ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["per-file-ignores"]
    assert {path for path, codes in config.items() if code in codes} == set(listed)
    assert all(listed.values())


LIMITS = ("PLC0415", "BLE001", "C901", "PLR0913")


def test_no_line_switches_off_a_limit() -> None:
    assert rules.complaints(rules.python_files(*ALL), lambda text: rules.switched_off(text, LIMITS)) == []


def test_a_line_that_switches_off_a_limit_is_caught() -> None:
    mark = "# no" + "qa"
    assert rules.switched_off(f"x = 1\nimport a  {mark}: E402, PLC0415\n", LIMITS) == ["2: PLC0415"]
    assert rules.switched_off(f"import a  {mark}\nimport b  {mark}: N815\n", LIMITS) == ["1: everything"]


def test_names_say_what_is_inside() -> None:
    found = [f"{path}:{hit}" for path in rules.python_files(*ALL) for hit in rules.forbidden_names(path, (rules.ROOT / path).read_text())]
    assert found == []


def test_a_name_that_says_nothing_is_caught() -> None:
    assert rules.forbidden_names(Path("src/plughub/kit/string_utils.py"), "") == ["1: the path says 'utils'"]
    assert rules.forbidden_names(Path("src/a.py"), "class KeyManager: ...\n") == ["1: KeyManager says 'manager'"]
    assert rules.forbidden_names(Path("src/a.py"), "def helper_of(): ...\n") == ["1: helper_of says 'helper'"]
    assert rules.forbidden_names(Path("src/utility.py"), "class Manage: ...\n") == []


def test_our_own_code_is_never_mocked() -> None:
    assert rules.complaints(rules.python_files("tests"), rules.mocks) == []


@pytest.mark.parametrize(
    "text",
    [
        "from unittest.mock import Mock\n",
        "from unittest import mock\n",
        "import unittest.mock\n",
        "def test_x(mocker): ...\n",
        "monkeypatch.setattr('plughub.keys.service.now', 1)\n",
        "from plughub.keys import service\nmonkeypatch.setattr(service, 'now', 1)\n",
        "import plughub.keys\nmonkeypatch.setattr(plughub.keys, 'now', 1)\n",
        "from plughub.keys import service\nservice.now = 1\n",
        "from plughub.keys.service import Key\nKey.now = 1\n",
    ],
)
def test_a_mock_is_caught(text: str) -> None:
    assert len(rules.mocks(text)) == 1


def test_http_patch_and_the_environment_are_no_mocks() -> None:
    text = "from plughub.keys import service\nclient.patch('/api')\nmonkeypatch.setenv('A', 'b')\nself.service.now = 1\n"
    assert rules.mocks(text) == []


def test_tests_never_sleep() -> None:
    # A fake server may be slow; whoever waits for it waits for its answer.
    paths = [path for path in rules.python_files("tests") if path.parts[1] != "fakes"]
    found = rules.complaints(paths, rules.sleeps)
    assert outside(found, SLEEPING_TESTS) == []
    assert stale(found, SLEEPING_TESTS) == set()


def test_a_sleep_is_caught() -> None:
    assert rules.sleeps("time.sleep(1)\nawait asyncio.sleep(0.1)\nawait anyio.sleep(n)\n") == [
        "1: time.sleep",
        "2: asyncio.sleep",
        "3: anyio.sleep",
    ]
    assert rules.sleeps("await asyncio.sleep(0)\nawait anyio.sleep_forever()\n") == []


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in rules.tracked_files():
        try:
            text = (rules.ROOT / path).read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path}:{hit}" for hit in rules.places(text)]
    assert found == []


def test_a_machine_path_and_a_registry_host_are_caught() -> None:
    home, registry = "/".join(("", "home", "me", "x")), rules.REGISTRY_HOSTS[0]
    assert rules.places(f"see {home}\n") == [f"1: {home[:-1]}"]
    assert rules.places(f"from https://{registry}/simple\n") == [f"1: {registry}"]
    assert rules.places("GET /api/work/1, ./work/x, $HOME/x, /tmp/x\n") == []


def test_lock_files_name_no_address_and_hash_every_package() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        lines = (rules.ROOT / name).read_text().splitlines()
        assert [line for line in lines if "://" in line or line.startswith("--")] == []
        pins = [number for number, line in enumerate(lines) if line and line[0] not in " #"]
        assert pins
        assert [lines[number] for number in pins if "--hash=sha256:" not in lines[number + 1]] == []
