"""What may be imported: the hub uses only declared dependencies, and what runs as a process of its own only the standard library."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions

from tests.architecture import rules

ALONE = ("src/plughub/demo_server.py", "src/plughub/upstream/warden.py")
# Imported by us, required by a declared dependency whose version decides theirs.
THROUGH = {"starlette": "fastapi", "pydantic-core": "pydantic"}


def foreign_imports(text: str) -> set[str]:
    """Top-level names of imported modules that are not of the standard library."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0] if node.level == 0 else "(relative)")
    return names - sys.stdlib_module_names - {"__future__"}


def normal(distribution: str) -> str:
    """A distribution's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def declared() -> set[str]:
    """Distributions that pyproject.toml asks for at run time."""
    requirements = tomllib.loads((rules.ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return {normal(re.split(r"[\[<>=!;~ ]", requirement)[0]) for requirement in requirements}


@cache
def brings() -> dict[str, list[str]]:
    """Which distributions an importable name comes from."""
    return dict(packages_distributions())


def undeclared(text: str) -> set[str]:
    """Imported modules that no declared dependency brings."""
    wanted = declared()
    return {
        name
        for name in foreign_imports(text) - {"plughub"}
        if not any({normal(d), THROUGH.get(normal(d))} & wanted for d in brings().get(name, ()))
    }


def test_the_hub_imports_only_declared_dependencies() -> None:
    found = {str(path): names for path in rules.python_files("src") if (names := undeclared((rules.ROOT / path).read_text()))}
    assert found == {}


def test_an_undeclared_import_is_caught() -> None:
    assert undeclared("import pytest\nfrom mcp import Client\nimport nowhere.x\nfrom . import y\n") == {
        "pytest",
        "mcp",
        "nowhere",
        "(relative)",
    }
    assert undeclared("import msgspec, sqlalchemy.ext\nfrom starlette.types import Scope\nimport asyncio\n") == set()


def test_what_runs_alone_needs_the_standard_library_alone() -> None:
    assert {path: foreign_imports((rules.ROOT / path).read_text()) for path in ALONE} == {path: set() for path in ALONE}
