"""`plughub apply`, and `plughub export --as hub`: a hub as a file."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from plughub.cli.exits import ExitCode, Failure
from plughub.cli.session import Session

_FILE_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def apply(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A hub's file in YAML; - for stdin. docs/apply.md says what it holds.")],
    prune: Annotated[bool, typer.Option("--prune", help="Remove what the file does not name, in the sections that it has.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before something is removed.")] = False,
    save_keys: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write new keys there, one a file (mode 0600), instead of the screen.")
    ] = None,
) -> None:
    """Make the hub what a file says: first the plan, then the work. A second time there is nothing to do."""
    # The parser of YAML is loaded by the two commands that need it.
    from plughub.cli.hub_file.form import SECTIONS, Form
    from plughub.cli.hub_file.planning import Planner
    from plughub.cli.hub_file.reading import Document, read_file
    from plughub.cli.hub_file.running import Runner
    from plughub.cli.hub_file.state import read_state

    document = Document(file)
    data = sys.stdin.buffer.read() if file == "-" else read_file(Path(file))
    wanted = Form(document, os.environ).check(document.read(data))
    state = read_state(session, [section for section in SECTIONS if wanted.sections[section] is not None])
    steps = Planner(document, wanted, state, session.key).plan(prune=prune)
    _tell_plan(session, steps)
    if not dry_run:
        if any(step.action == "remove" for step in steps) and not yes:
            _ask_first(session)
        keep = _Keys(save_keys)
        keep.ready(steps)
        runner = Runner(session)
        try:
            runner.run(steps)
        finally:
            # What was made before something failed has a secret that nobody will see again.
            keys = keep.found(steps, runner.answers)
        _tell_done(session, steps, runner.answers, keys)
    elif session.screen.as_json:
        session.screen.json({"applied": False, "steps": [step.shown() for step in steps]})


def export_hub(session: Session) -> str:
    """The hub as a file; every secret is a variable `${NAME}`."""
    import yaml

    from plughub.cli.hub_file.form import SECTIONS
    from plughub.cli.hub_file.state import read_state, written

    state = read_state(session, SECTIONS)
    for kind, named in (("projects", state.projects), ("keys", state.keys), ("collections", state.collections or {})):
        for name in [name for name, found in named.items() if len(found) > 1]:
            session.screen.note(f"{len(named.pop(name))} {kind} are called {name}: a file cannot tell them apart, so they are left out")
    document = written(state, session.ask("GET", "/api/servers/export"))
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120))


class _Keys:
    """Where the secrets of new keys go: to the screen, or each into a file of its own."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def ready(self, steps: Sequence[Any]) -> None:
        """Before a key is made: can it be kept? Raises Failure."""
        names = [step.name for step in steps if step.kind == "key" and step.action == "create"]
        if self._folder is None or not names:
            return
        if not self._folder.is_dir():
            raise Failure(ExitCode.USAGE, f"{self._folder} is no folder")
        if there := [str(path) for path in map(self._file, names) if path.exists()]:
            raise Failure(ExitCode.USAGE, f"{there[0]} is there already: nothing was changed")

    def found(self, steps: Sequence[Any], answers: dict[str, Any]) -> dict[str, str | None]:
        """The new keys by name; None for those that were written into a file."""
        made: dict[str, str | None] = {}
        for step in steps:
            answer = answers.get(step.operations[0].id) if step.kind == "key" and step.action == "create" else None
            if answer is None:
                continue
            made[step.name] = answer["key"] if self._folder is None else None
            if self._folder is not None:
                handle = os.open(self._file(step.name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with os.fdopen(handle, "w") as file:
                    file.write(answer["key"] + "\n")
        return made

    def _file(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{_FILE_NAME.sub('-', name)}.key"


def _tell_plan(session: Session, steps: Sequence[Any]) -> None:
    if session.screen.as_json:
        return
    for step in steps:
        if step.action != "leave" or step.unseen:
            session.screen.text(step.line())
    left = sum(step.action == "leave" and not step.unseen for step in steps)
    session.screen.text(f"{left} as they are" if left else "" if steps else "The file names nothing")


def _ask_first(session: Session) -> None:
    if not sys.stdin.isatty():
        raise Failure(ExitCode.USAGE, "Something would be removed: say --yes. Nothing was changed.")
    session.screen.note("Remove what begins with -? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Failure(ExitCode.USAGE, "Nothing was changed.")


def _tell_done(session: Session, steps: Sequence[Any], answers: dict[str, Any], keys: dict[str, str | None]) -> None:
    changed = [step for step in steps if step.action != "leave" or _compared(step, answers)]
    if session.screen.as_json:
        shown = [{**step.shown(), "action": "change" if step.action == "leave" else step.action} for step in changed]
        session.screen.json({"applied": True, "steps": shown, "keys": keys})
        return
    for step in changed:
        if step.action == "leave":
            session.screen.text(f"~ {step.kind} {step.name}: {', '.join(step.unseen)}")
    session.screen.text(f"{len(changed)} changed" if changed else "Nothing to do: the hub is as the file says")
    for name, key in keys.items():
        session.screen.text(f"key {name}: {key or 'written'}")


def _compared(step: Any, answers: dict[str, Any]) -> bool:
    """Whether the hub found that a value which it does not show is another one."""
    answer = answers.get(step.operations[-1].id) if step.unseen and step.operations else None
    return answer is not None and answer["updated_at"] != step.was
