"""Writes docs/settings.md from the settings themselves (`make docs`)."""

from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from plughub.settings import PREFIX, Settings

PAGE = Path(__file__).with_name("settings.md")
HEAD = """# Settings

Each is an environment variable; lists are separated by commas or spaces. `plughub serve --help` names those that are options too.
This page is generated from `src/plughub/settings.py` by `make docs`.

| variable | default | meaning |
|---|---|---|
"""


def shown(default: Any) -> str:
    """A default as it would be written into the environment."""
    if default in (None, "", ()):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def row(name: str, field: FieldInfo) -> str:
    """One line of the table."""
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{PREFIX}{name.upper()}` | {shown(field.default)} | {meaning} |\n"


def render() -> str:
    """The whole page."""
    return HEAD + "".join(row(name, field) for name, field in Settings.model_fields.items())


if __name__ == "__main__":
    PAGE.write_text(render())
