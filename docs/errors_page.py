"""Writes docs/errors.md from the errors themselves (`make docs`)."""

from collections.abc import Iterator
from pathlib import Path

from plughub.kit.errors import HubError, Internal

PAGE = Path(__file__).with_name("errors.md")
HEAD = """# Errors

`/api` and `/v1` say the same in two dialects:

```sh
curl -s $PLUGHUB_URL/api/servers/nope -H "Authorization: Bearer $PLUGHUB_KEY"
```
```json
{"error": {"code": "NOT_FOUND", "message": "Server not found", "details": {"hint": "…"}},
 "message": "Server not found", "request_id": "req_…"}
```
```sh
curl -s $PLUGHUB_URL/v1/mcps/nope -H "Authorization: Bearer $PLUGHUB_KEY"
```
```json
{"success": false, "error": {"code": "not_found", "message": "MCP not found", "details": {"hint": "…", "request_id": "req_…"}}}
```

MCP answers with a JSON-RPC error whose `data` holds the `/api` code and the details. `details.hint` is the remedy; the request id is also
in `X-Request-Id` and in the hub's log. Programs look at `code`, people at `message`.

- **A field is wrong** (400, on `/v1` 422): `details.field` and `details.value`; several at once are in `details.errors`. On `/v1` each
  field is a member of `details`.
- **A scope is missing** (403): `details.required_scope`.
- **Too many requests** (429): wait `Retry-After` seconds; `details.policy` says which limit. A refusal costs nothing.
- **Did it run?** On 502 and 504 `details.executed` is `no` when the server never got the request, so that trying again is safe, and
  `unknown` when it may have run.
- **What the hub never tells**: something of another organisation or environment looks exactly like something that does not exist.

This table is generated from `src/plughub/kit/errors.py` by `make docs`.

| `/api` | `/v1` | message | when | what to do |
|---|---|---|---|---|
"""


def every(kind: type[HubError] = HubError) -> Iterator[type[HubError]]:
    """The error classes below `kind`, each after the one it is a kind of. A kind that a module keeps to itself looks like the one above."""
    for below in kind.__subclasses__():
        if below.__module__ == HubError.__module__:
            yield below
            yield from every(below)


def row(error: type[HubError]) -> str:
    """One line of the table."""
    status, code = error.v1_status or error.status, error.v1_code or error.code.lower()
    message = error.message if error.v1_message in (None, error.message) else f"{error.message}; on `/v1` {error.v1_message}"
    when = (error.__doc__ or "").strip().split("\n\n", 1)[0].replace("\n", " ")
    cells = [f"{error.status} `{error.code}`", f"{status} `{code}`", message, when, error.hint or ""]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |\n"


def render() -> str:
    """The whole page, by status."""
    found = sorted((error for error in every() if error is not Internal), key=lambda error: error.status)
    return HEAD + "".join(row(error) for error in [*found, Internal])


if __name__ == "__main__":
    PAGE.write_text(render())
