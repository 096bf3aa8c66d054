"""The API's description: valid, generated, and true of what is served."""

import json
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import TypeAdapter

from plughub.api.openapi import build_openapi, render_openapi
from plughub.door.routes import PUBLIC
from tests.fakes.http_servers import HttpServer
from tests.serving import FakeMcp, Served
from tests.walks.rows import ROWS, Things, ask, name, placed, without_session

pytestmark = pytest.mark.anyio
APART = ("Accounts", "OAuth", "Command line")
FILE = Path(__file__).parents[2] / "contract" / "openapi.json"


@pytest.mark.requirement("routes.contract-is-generated")
def test_the_document_is_valid_openapi() -> None:
    document = build_openapi(ROWS)
    assert document["openapi"] == "3.1.0"
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


@pytest.mark.requirement("routes.contract-is-generated")
async def test_the_file_is_what_is_generated_and_served(lite: Served) -> None:
    assert FILE.read_text() == render_openapi(ROWS), "run: python -m plughub.contract"
    served = await lite.call("GET", "/api/openapi.json", key="")
    assert served.content == FILE.read_bytes()


def operations() -> dict[str, Any]:
    document = json.loads(FILE.read_text())
    return {f"{method.upper()} {path}": found for path, methods in document["paths"].items() for method, found in methods.items()}


@pytest.mark.requirement("routes.default-deny")
def test_every_row_is_described_with_its_scope_its_answer_and_its_errors() -> None:
    described = operations()
    assert set(described) == {name(row) for row in ROWS}
    assert len({operation["operationId"] for operation in described.values()}) == len(ROWS)
    for row in ROWS:
        operation = described[name(row)]
        assert operation["summary"] and operation["description"]
        assert str(row.status) in operation["responses"] and "default" in operation["responses"]
        assert "422" not in operation["responses"]
        if row.scope == PUBLIC:
            assert operation["security"] == []
        else:
            assert operation["x-required-scope"] in (row.scope, "any key")
            assert {"401", "403", "429"} <= set(operation["responses"])
        assert row.output is not None or row.status in (202, 204)


@pytest.mark.requirement("routes.contract-is-generated")
async def test_every_good_answer_is_as_described(served: Served) -> None:
    """A tour over all rows; what is removed last is what the others needed. Accounts and OAuth have tours of their
    own: tests/api/test_auth.py, tests/oauth."""
    answers = {"resources/read": {"contents": []}, "prompts/get": {"messages": []}}
    async with HttpServer(FakeMcp(answers=answers)) as server:

        async def new() -> Things:
            server_id = (await served.register("Tour", server.url))["uuid"]
            key = await served.call("POST", "/api/auth/keys", {"name": "Tour"})
            await served.app.hub.writer.flush()
            made = await placed(served, Things(server_id, key.json()["id"], key.headers["x-request-id"]))
            await served.call("PATCH", f"/api/collections/{made.collection}", {"isPublic": True})
            return made

        things = await new()
        for row in sorted(
            [row for row in ROWS if not without_session(row) and row.tag not in APART and not row.path.endswith("/accept")],
            key=lambda row: (row.method == "DELETE", row.path),
        ):
            if row.method == "DELETE":
                things = await new()
            answer = await ask(served, row, things)
            assert answer.status_code == row.status, (name(row), answer.text)
            if row.output is None:
                assert answer.content == b""
            elif row.output_kind == "application/json":
                TypeAdapter(row.output).validate_json(answer.content)
                assert answer.headers["content-type"] == "application/json"
            else:
                assert answer.headers["content-type"].startswith(row.output_kind)
        for made in (await served.call("GET", "/api/servers")).json()["servers"]:
            if made["name"] == "Tour":
                await served.call("DELETE", f"/api/servers/{made['uuid']}")
