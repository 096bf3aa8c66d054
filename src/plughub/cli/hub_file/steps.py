"""What is to be done to a hub: steps that a reader understands, each with the requests that do it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Action = Literal["create", "change", "leave", "remove"]
MARKS: dict[Action, str] = {"create": "+", "change": "~", "leave": "=", "remove": "-"}


@dataclass(frozen=True, slots=True)
class Ref:
    """A member of the answer that another request will have had."""

    operation: str
    member: str = "uuid"

    @property
    def text(self) -> str:
        """As a batch has it."""
        return f"{{{{{self.operation}.body.{self.member}}}}}"


class Template(str):
    """A text of a batch in which references stand."""

    __slots__ = ()


Id = str | Ref


@dataclass(frozen=True, slots=True)
class Operation:
    """One request; its path in parts, some of which are not known yet, as values of its body may be."""

    id: str
    method: str
    path: tuple[Id, ...]
    body: Any = None


@dataclass(slots=True)
class Step:
    """What happens to one thing. `unseen`: values that the hub does not show and compares itself; `was`: its `updated_at` before."""

    action: Action
    kind: str
    name: str
    changes: list[str] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    was: str | None = None

    def line(self) -> str:
        """The step in a line."""
        more = "; ".join(self.changes)
        if self.unseen and self.action == "leave":
            more = f"the hub compares {', '.join(self.unseen)}"
        return f"{MARKS[self.action]} {self.kind} {self.name}" + (f": {more}" if more else "")

    def shown(self) -> dict[str, Any]:
        """The step as JSON."""
        return {"action": self.action, "kind": self.kind, "name": self.name, "changes": self.changes, "unseen": self.unseen}


def resolved(value: Any, answers: dict[str, Any]) -> Any:
    """`value` with what the answers say in the place of references."""
    if isinstance(value, Ref):
        return answers[value.operation][value.member] if value.operation in answers else value
    if isinstance(value, dict):
        return {name: resolved(inner, answers) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(inner, answers) for inner in value]
    return value


def encoded(value: Any) -> str:
    """JSON for a batch: references as it has them, and no other text that looks like one."""
    return "".join(_pieces(value))


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, Ref):
        yield json.dumps(value.text)
    elif isinstance(value, str):
        text = json.dumps(value)
        yield text.replace("{", "\\u007b") if "{{" in text and not isinstance(value, Template) else text
    elif isinstance(value, dict):
        yield "{" + ",".join(f"{encoded(name)}:{encoded(inner)}" for name, inner in value.items()) + "}"
    elif isinstance(value, list | tuple):
        yield "[" + ",".join(encoded(inner) for inner in value) + "]"
    else:
        yield json.dumps(value)
