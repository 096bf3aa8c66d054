"""What is looked for, as pure functions: a text in, lines of complaint out, so that each rule is shown to catch a violation."""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES = 600
FUNCTION_LINES = 80

FORBIDDEN_WORDS = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "misc"}
# Written in parts, so that this file may be checked too.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("static", "crates", "io"),
        ("index", "crates", "io"),
        ("proxy", "golang", "org"),
        ("repo", "maven", "apache", "org"),
        ("deb", "debian", "org"),
    )
)
MACHINE_PATH = re.compile(r"(?<![\w.$}/-])/(?:work|root|home/\w+|Users/\w+)/")
LOOK_AWAY = re.compile(r"#\s*noqa\b(:[A-Z0-9, ]+)?")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Rule = Callable[[str], list[str]]


def tracked_files(*suffixes: str) -> list[Path]:
    """Files of the repository, and new ones that git does not ignore; paths relative to the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    paths = [Path(name) for name in listed if name and (not suffixes or name.endswith(suffixes))]
    return sorted(path for path in paths if (ROOT / path).is_file())


def python_files(*folders: str) -> list[Path]:
    """Tracked Python files below one of the folders."""
    return [path for path in tracked_files(".py") if path.parts[0] in folders]


def functions(tree: ast.AST) -> Iterator[Function]:
    """Every function, methods and inner ones included."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def too_long(text: str) -> list[str]:
    """A file or a function over the hard limit."""
    found = []
    if (lines := text.count("\n")) > FILE_LINES:
        found.append(f"1: {lines} lines, at most {FILE_LINES}")
    for node in functions(ast.parse(text)):
        if (size := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES:
            found.append(f"{node.lineno}: {node.name} has {size} lines, at most {FUNCTION_LINES}")
    return found


def inner_imports(text: str) -> list[str]:
    """Imports that run later than the module's own import."""
    nodes = (node for function in functions(ast.parse(text)) for node in ast.walk(function))
    lines = {node.lineno for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)}
    return [f"{line}: import inside a function" for line in sorted(lines)]


def broad_excepts(text: str) -> list[str]:
    """`except:`, `except Exception`, `except BaseException`, alone or in a tuple, unless the handler raises again as its last act."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler) and not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None):
            kinds = [node.type] if not isinstance(node.type, ast.Tuple) else node.type.elts
            if any(kind is None or dotted(kind) in ("Exception", "BaseException") for kind in kinds):
                found.append(f"{node.lineno}: broad except")
    return found


def forbidden_names(path: Path, text: str) -> list[str]:
    """Names that say nothing about what is inside."""
    found = [f"1: the path says {word!r}" for part in path.parts for word in words(part.removesuffix(".py")) & FORBIDDEN_WORDS]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Function | ast.ClassDef) and (hit := words(node.name) & FORBIDDEN_WORDS):
            found.append(f"{node.lineno}: {node.name} says {', '.join(sorted(hit))!r}")
    return found


def switched_off(text: str, codes: tuple[str, ...]) -> list[str]:
    """Lines that tell the linter to look away from one of the codes, or from everything."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if match := LOOK_AWAY.search(line):
            named = re.findall(r"[A-Z]+[0-9]+", match.group(1) or "")
            found += [f"{number}: {code}" for code in named if code in codes] if named else [f"{number}: everything"]
    return found


def words(name: str) -> set[str]:
    """`KeyManager`, `key_manager`, `key-manager` -> key, manager."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def mocks(text: str) -> list[str]:
    """Mock libraries, and our own code replaced by monkeypatch or by assignment."""
    tree = ast.parse(text)
    ours = {
        alias.asname or alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
        if (node.module or "" if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0] == "plughub"
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and imported(node) & {"mock", "unittest.mock", "pytest_mock"}:
            found.append(f"{node.lineno}: a mock library")
        elif isinstance(node, ast.arg) and node.arg == "mocker":
            found.append(f"{node.lineno}: mocker")
        elif isinstance(node, ast.Call) and dotted(node.func) in ("monkeypatch.setattr", "monkeypatch.delattr", "monkeypatch.setitem"):
            target = node.args[0] if node.args else None
            name = target.value if isinstance(target, ast.Constant) else dotted(target)
            if str(name).split(".")[0] in ours | {"plughub"}:
                found.append(f"{node.lineno}: monkeypatches {name}")
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [f"{node.lineno}: replaces {dotted(t)}" for t in targets if isinstance(t, ast.Attribute) and dotted(t.value) in ours]
    return found


def imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    """Modules that a statement names; for `from a import b` both `a` and `a.b`."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    return {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}


def sleeps(text: str) -> list[str]:
    """A wait for time to pass; `sleep(0)` only lets others run."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and dotted(node.func) in ("time.sleep", "asyncio.sleep", "anyio.sleep", "sleep"):
            yields = node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
            found += [] if yields else [f"{node.lineno}: {dotted(node.func)}"]
    return found


def places(text: str) -> list[str]:
    """Paths of somebody's machine, and hosts of package registries."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        found += [f"{number}: {host}" for host in REGISTRY_HOSTS if host in line]
        found += [f"{number}: {match.group()}" for match in MACHINE_PATH.finditer(line)]
    return found


def dotted(node: ast.AST | None) -> str:
    """`a.b.c` of a name or attribute chain, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := dotted(node.value)):
        return f"{head}.{node.attr}"
    return ""


def complaints(paths: list[Path], rule: Rule) -> list[str]:
    """The rule's findings in all files, each as `path:line: what`."""
    return [f"{path}:{found}" for path in paths for found in rule((ROOT / path).read_text())]
