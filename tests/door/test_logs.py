"""What the hub writes about its requests."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from tests.serving import FakeMcp, Served, serving, upstream

pytestmark = pytest.mark.anyio
CANARIES = {"headers": {"Authorization": "canary-header"}}


@pytest.fixture
async def loud(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Served]:
    """A hub of its own: what it logs is caught."""
    (tmp_path / "plughub.db").write_bytes(sqlite_template.read_bytes())
    async with serving(f"sqlite:///{tmp_path}/plughub.db", tmp_path) as found:
        yield found


@pytest.mark.requirement("http.logs-without-secrets")
async def test_requests_are_logged_with_their_id_and_never_with_a_secret(loud: Served, tmp_path: Path) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(0))
    try:
        with capture_logs() as lines:
            async with upstream(loud, FakeMcp(), **CANARIES) as made:
                made_key = (await loud.call("POST", "/api/auth/keys", {"name": "x"})).json()["key"]
                answer = await loud.call("GET", f"/api/servers?token=canary-query&key={made_key}", key=made_key)
                await loud.call("POST", "/api/servers", {"name": "x", "type": "STDIO", "config": {"command": "x", "env": "canary-env"}})
                env = {
                    "name": "x",
                    "type": "STDIO",
                    "config": {"command": "/no/such", "env": {"A": "canary-env"}, "secret_args": ["canary-arg"]},
                }
                stdio = (await loud.call("POST", "/api/servers", env)).json()
                await loud.call("GET", f"/api/servers/{stdio['uuid']}/tools")
                await loud.call("GET", "/api/servers", key=loud.key[:-1] + "x")
                await loud.call("POST", f"/api/servers/{made['uuid']}/tools/echo/execute", {"parameters": {"password": "canary-argument"}})
    finally:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    text = json.dumps(lines, default=str) + "".join(file.read_text() for file in (tmp_path / "logs").glob("*"))
    assert "canary" not in text
    assert "_ph_" not in text
    mine = [line for line in lines if line.get("request_id") == answer.headers["x-request-id"]]
    assert [(line["method"], line["route"], line["status"]) for line in mine] == [("GET", "/api/servers", 200)]


@pytest.mark.requirement("keys.test-keys-can-be-refused")
async def test_an_operator_may_refuse_test_keys(sqlite_template: Path, tmp_path: Path) -> None:
    (tmp_path / "plughub.db").write_bytes(sqlite_template.read_bytes())
    async with serving(f"sqlite:///{tmp_path}/plughub.db", tmp_path, refuse_test_keys=True) as strict:
        test = await strict.key_of(await strict.operator(), "test")
        answer = await strict.call("GET", "/api/servers", key=test)
        details = answer.json()["error"]["details"]
        assert (answer.status_code, details["key_prefix"]) == (401, "pk_test_")
        assert details["hint"] == "Ensure you're using a production key for this environment"
        assert (await strict.call("GET", "/api/servers")).status_code == 200
