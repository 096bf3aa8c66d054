"""Steps done to a hub: in atomic batches where it has them, else one request after the other, and then told exactly how far."""

from collections.abc import Iterator, Sequence
from typing import Any

from plughub.cli.exits import ExitCode, Failure, failure_of
from plughub.cli.hub_file.steps import Operation, Ref, Step, Template, encoded, resolved
from plughub.cli.session import Session

_BATCH = "/api/batch"
# What one batch may hold.
_AT_ONCE = 50


class Runner:
    """Does the steps. `answers`: what each request was answered, by its id."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.answers: dict[str, Any] = {}

    def run(self, steps: Sequence[Step]) -> None:
        """Do all of them. Raises Failure that says what was done, and what was not."""
        pieces = list(_pieces(steps))
        for number, piece in enumerate(pieces):
            done = [step for before in pieces[:number] for step in before]
            rest = [step for after in pieces[number:] for step in after]
            try:
                self._atomic(piece)
            except _NoBatch:
                self._one_by_one(rest, done)
                return
            except Failure as failure:
                raise _half(failure, done, rest) from failure

    def _atomic(self, steps: Sequence[Step]) -> None:
        sent = [self._batched(one) for step in steps for one in step.operations]
        try:
            answer = self._session.ask("POST", _BATCH, raw=encoded({"mode": "atomic", "operations": sent}))
        except Failure as failure:
            if failure.code == ExitCode.NOT_FOUND:
                raise _NoBatch from failure
            raise
        results = {one["id"]: one for one in answer["results"]}
        for step in steps:
            for operation in step.operations:
                result = results[operation.id]
                if result["status"] >= 400 and result["status"] != 424:
                    raise _of_step(step, failure_of(result["body"]))
                self.answers[operation.id] = result["body"]

    def _one_by_one(self, steps: Sequence[Step], done: Sequence[Step]) -> None:
        for at, step in enumerate(steps):
            for number, operation in enumerate(step.operations):
                try:
                    self.answers[operation.id] = self._ask(operation)
                except Failure as failure:
                    begun = [f"  begun: {step.line()}"] if number else []
                    raise _half(_of_step(step, failure), [*done, *steps[:at]], steps[at:], begun) from failure

    def _ask(self, operation: Operation) -> Any:
        path = "".join(map(str, self._resolved(operation.path)))
        return self._session.ask(operation.method, path, self._resolved(operation.body))

    def _batched(self, operation: Operation) -> dict[str, Any]:
        parts = [part.text if isinstance(part, Ref) else part for part in self._resolved(operation.path)]
        body = {} if operation.body is None else {"body": self._resolved(operation.body)}
        return {"id": operation.id, "method": operation.method, "path": Template("".join(parts)), **body}

    def _resolved(self, value: Any) -> Any:
        return resolved(value, self.answers)


class _NoBatch(Exception):
    """The hub has no such route."""


def _pieces(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Steps with something to do, as many together as a batch may hold."""
    piece: list[Step] = []
    for step in steps:
        if not step.operations:
            continue
        if piece and sum(len(one.operations) for one in (*piece, step)) > _AT_ONCE:
            yield piece
            piece = []
        piece.append(step)
    if piece:
        yield piece


def _of_step(step: Step, failure: Failure) -> Failure:
    return Failure(failure.code, f"{step.kind} {step.name}: {failure.text}", *failure.lines)


def _half(failure: Failure, done: Sequence[Step], rest: Sequence[Step], begun: Sequence[str] = ()) -> Failure:
    if not done and not begun:
        return Failure(failure.code, failure.text, *failure.lines, "Nothing was changed.")
    lines = [*(f"  done: {step.line()}" for step in done), *begun, *(f"  not done: {step.line()}" for step in rest)]
    return Failure(failure.code, failure.text, *failure.lines, *lines, "Apply the file again: what is done stays.")
