"""Servers of the old HTTP+SSE transport, as their callers see them."""

import pytest

from tests.fakes.http_servers import HttpServer
from tests.fakes.sse_servers import SseMcp, event, forever
from tests.serving import Json, Served

pytestmark = pytest.mark.anyio
TOOLS = b'{"jsonrpc":"2.0","id":%d,"result":{"tools":[{"name":"huge","inputSchema":{"type":"object"}}]}}'


async def make(lite: Served, server: HttpServer, **config: object) -> Json:
    body = {"name": "Old", "type": "SSE", "config": {"url": server.url, **config}}
    answer = await lite.call("POST", "/api/servers", body)
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


@pytest.mark.requirement("bad-input.sse-servers", "servers.live-status", "servers.logs")
async def test_a_server_without_an_endpoint_is_told_to_the_caller_in_its_status_and_in_its_log(lite: Served) -> None:
    async with HttpServer(SseMcp(opening=event(b"http://elsewhere.test/messages", b"endpoint"))) as server:
        made = await make(lite, server)
        path = f"/api/servers/{made['uuid']}"
        refused = (await lite.call("POST", f"{path}/tools/x/execute", {})).json()["error"]
        assert (refused["code"], refused["details"]["executed"]) == ("UPSTREAM_ERROR", "no")
        words = "the server's endpoint is on another origin (http://elsewhere.test), which is not followed"
        assert words in refused["message"]
        now = (await lite.call("GET", path)).json()
        assert (now["status"], now["last_error"]) == ("error", words)
        assert words in (await lite.call("GET", f"{path}/logs")).text


@pytest.mark.requirement("bad-input.sse-servers", "bad-input.huge-line")
async def test_a_huge_event_fails_the_call_it_belongs_to_and_the_server_stays_connected(lite: Served) -> None:
    limit = lite.app.hub.settings.max_message_bytes
    size = limit + 1_000_000

    async def huge(server: SseMcp, id_: int, arguments: Json) -> None:
        server.write(event(b'{"jsonrpc":"2.0","id":%d,"result":{"a":"%b"}}' % (id_, b"x" * size)))

    class Listing(SseMcp):
        def write(self, data: bytes) -> None:
            said = self.posted[-1]
            super().write(event(TOOLS % said["id"]) if said["method"] == "tools/list" else data)

    async with HttpServer(Listing(tools={"huge": huge, "forever": forever})) as server:
        made = await make(lite, server)
        path = f"/api/servers/{made['uuid']}"
        answer = await lite.call("POST", f"{path}/tools/huge/execute", {})
        assert (answer.status_code, answer.json()["error"]["details"]["executed"]) == (502, "unknown")
        assert f"the limit is {limit}" in answer.json()["message"]
        assert (await lite.call("GET", path)).json()["status"] == "connected"
        assert "was skipped" in (await lite.call("GET", f"{path}/logs")).text
