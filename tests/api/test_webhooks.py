"""Webhooks as their users know them: made over REST, told of real events, with receivers that check."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import select

from plughub.db.webhook_tables import webhook
from tests.fakes.http_servers import Seen
from tests.flows.packages import NODE, npm_folder
from tests.serving import Json, Served, serving
from tests.webhooks.delivering import SECRET, Receiver, verified
from tests.webhooks.judges import CLIENTS, NPM_PACKAGES

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def hub(both_url: str, hub_dir: Path, anyio_backend: str) -> AsyncIterator[Served]:
    """A hub that may deliver to receivers on this machine."""
    async with serving(both_url, hub_dir, allow_private_addresses="127.0.0.0/8") as found:
        await found.settled()
        yield found


async def made(hub: Served, url: str, *events: str, **given: Any) -> Json:
    answer = await hub.call("POST", "/api/webhooks", {"url": url, "events": list(events or ("*",)), "secret": SECRET, **given})
    assert answer.status_code == 201, answer.text
    found: Json = answer.json()
    return found


async def echo(hub: Served, text: str) -> None:
    answer = await hub.call("POST", f"/api/servers/{hub.demo_id}/tools/echo/execute", {"parameters": {"text": text}})
    assert answer.status_code == 200, answer.text


def by_name(seen: list[Seen]) -> dict[str, Json]:
    return {body["event"]: body for body in verified(seen)}


@pytest.mark.requirement("webhooks.managed", "webhooks.delivered")
async def test_calls_and_changes_reach_a_receiver_that_verifies_them(hub: Served) -> None:
    async with Receiver().server as server:
        hook = await made(hub, server.url, "tool.*", "key.created")
        await echo(hub, "hello")
        key = (await hub.call("POST", "/api/auth/keys", {"name": "told"})).json()
        with anyio.fail_after(10):
            await server.until(lambda: len(server.seen) == 2)
        told = by_name(server.seen)
        with anyio.fail_after(10):
            while len((await deliveries(hub, hook, "?status=delivered"))["deliveries"]) < 2:
                pass
    call = told["tool.executed"]
    assert (call["data"]["tool"], call["data"]["server_uuid"], call["data"]["is_error"]) == ("echo", hub.demo_id, False)
    assert call["data"]["mcp_id"].startswith("mcp_") and call["id"].startswith("evt_") and call["organization_id"].startswith("org_")
    assert told["key.created"]["data"]["name"] == "told" and key["key"] not in json.dumps(told)
    first = await deliveries(hub, hook, "?limit=1")
    second = await deliveries(hub, hook, f"?limit=1&cursor={first['next_cursor']}")
    assert second["next_cursor"] is None
    assert {row["deliveries"][0]["event"] for row in (first, second)} == {"tool.executed", "key.created"}
    shown = (await deliveries(hub, hook, "?event=tool.executed"))["deliveries"][0]
    assert json.loads(shown["request_body"]) == call
    assert (shown["response"]["status"], shown["response"]["error"], shown["attempts"]) == (200, None, 1)
    assert shown["message_id"] in {seen.header("webhook-id") for seen in server.seen}


async def deliveries(hub: Served, hook: Json, query: str = "") -> Json:
    answer = await hub.call("GET", f"/api/webhooks/{hook['id']}/deliveries{query}")
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


@pytest.mark.requirement("webhooks.managed")
async def test_a_test_delivery_answers_with_what_came_back_and_can_be_sent_again(hub: Served) -> None:
    receiver = Receiver(status=418, body=b"I am a teapot")
    async with receiver.server as server:
        hook = await made(hub, server.url, "server.error", active=False)
        tried = (await hub.call("POST", f"/api/webhooks/{hook['id']}/test", {"event": "test.ping"})).json()
        assert tried["success"] is False
        assert tried["delivery"]["response"] | {"duration_ms": 0} == {
            "status": 418,
            "body": "I am a teapot",
            "error": "the receiver answered HTTP 418 I'm a Teapot",
            "duration_ms": 0,
        }
        again = f"/api/webhooks/{hook['id']}/deliveries/{tried['delivery']['id']}/redeliver"
        assert (await hub.call("POST", again)).status_code == 409  # it is switched off
        await hub.call("PATCH", f"/api/webhooks/{hook['id']}", {"active": True})
        receiver.status = 200
        assert (await hub.call("POST", again)).json()["status"] == "pending"
        with anyio.fail_after(10):
            await server.until(lambda: len(server.seen) == 2)
    first, second = verified(server.seen)
    assert (first["data"]["test"], second["retry_count"]) == (True, 1)
    assert len({seen.header("webhook-id") for seen in server.seen}) == 1


@pytest.mark.requirement("webhooks.rotation")
async def test_a_rotation_signs_with_both_secrets_until_its_overlap_ends(hub: Served) -> None:
    async with Receiver().server as server:
        hook = await made(hub, server.url, "key.created")
        path = f"/api/webhooks/{hook['id']}"
        rotated = (await hub.call("POST", path + "/rotate-secret", {"overlap_seconds": 60})).json()
        await hub.call("POST", path + "/test", {})
        hub.clock.advance(61)
        await hub.call("POST", path + "/test", {})
    during, after = server.seen
    for secret in (SECRET, rotated["secret"]):
        verified([during], secret)
    verified([after], rotated["secret"])
    assert len((during.header("webhook-signature") or "").split(" ")) == 2
    assert len((after.header("webhook-signature") or "").split(" ")) == 1
    assert rotated["secret"] not in (await hub.call("GET", path)).text


@pytest.mark.requirement("webhooks.signatures")
async def test_the_documented_receiver_runs_unmodified(hub: Served) -> None:
    folder = npm_folder("webhooks", NPM_PACKAGES)
    script = folder / "express_sample.cjs"
    script.write_text((CLIENTS / "express_sample.cjs").read_text())
    process = await asyncio.create_subprocess_exec(str(NODE), str(script), "a secret, ü", stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        hook = await made(hub, f"http://127.0.0.1:{port}/webhook", "tool.executed", "key.created", secret="a secret, ü")
        await echo(hub, "hello")
        await hub.call("POST", "/api/auth/keys", {"name": 'ü "quoted" \u2028 \\ 1e21'})
        with anyio.fail_after(10):
            told = [json.loads(await process.stdout.readline()) for _ in range(2)]
        tried = (await hub.call("POST", f"/api/webhooks/{hook['id']}/test", {})).json()
    finally:
        process.kill()
        await process.wait()
    assert [one["good"] for one in told] == [True, True]
    assert {one["event"] for one in told} == {"tool.executed", "key.created"}
    assert (tried["success"], tried["delivery"]["response"]["body"]) == (True, "OK")


@pytest.mark.requirement("webhooks.integrations")
async def test_slack_is_posted_messages_of_the_project_alone(hub: Served) -> None:
    project = (await hub.call("POST", "/api/projects", {"name": "Quiet"})).json()["uuid"]
    async with Receiver(body=b"ok").server as server:
        body = {"webhook_url": server.url, "channel": "#ops", "events": ["server.updated"], "project_uuid": project}
        answer = await hub.call("POST", "/api/integrations/slack", body)
        assert answer.status_code == 201, answer.text
        away = {"type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/mcp"}, "enabled": False}
        for name, place in (("Elsewhere", {}), ("Here", {"project_uuid": project})):
            server_id = (await hub.call("POST", "/api/servers", {"name": name, **away, **place})).json()["uuid"]
            await hub.call("PATCH", f"/api/servers/{server_id}", {"description": "changed"})
        with anyio.fail_after(10):
            await server.until(lambda: bool(server.seen))
    assert [seen.json["text"] for seen in server.seen] == ["server.updated: Here"]


@pytest.mark.requirement("webhooks.addresses")
async def test_a_name_that_leads_inside_is_refused_when_it_is_dialled(lite: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    there = ("127.0.0.1", 9)
    entry = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", there)

    async def rebound(*_given: Any, **_more: Any) -> list[Any]:
        return [entry]

    hook = await made(lite, "https://rebinding.example/hook")
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebound)
    tried = (await lite.call("POST", f"/api/webhooks/{hook['id']}/test", {})).json()
    assert tried["success"] is False and "private and loopback addresses are not allowed" in tried["delivery"]["response"]["error"]


@pytest.mark.requirement("webhooks.secret-at-rest")
async def test_secrets_and_addresses_are_sealed_and_shown_nowhere(hub: Served) -> None:
    hook = await made(hub, "https://receiver.invalid/hook?token=canary-of-url", secret="canary-of-secret")
    shown = [hook, (await hub.call("GET", "/api/webhooks?limit=100")).json(), (await hub.call("GET", "/api/audit-logs?limit=100")).json()]
    async with hub.database.read() as connection:
        rows = (await connection.execute(select(webhook))).all()
    assert "canary" not in json.dumps(shown) and b"canary" not in repr(rows).encode()
    path = f"/api/webhooks/{hook['id']}"
    same = (await hub.call("PATCH", path, {"url": hook["url"], "description": "kept"})).json()
    assert (same["url"], same["description"]) == ("https://receiver.invalid/hook?token=***", "kept")


async def test_there_is_a_bound_on_the_webhooks_of_a_space(lite: Served) -> None:
    key = await lite.key_of(await lite.organization("Many"))
    body = {"url": "https://receiver.invalid/", "events": ["key.created"]}
    statuses = [(await lite.call("POST", "/api/webhooks", body, key=key)).status_code for _ in range(101)]
    assert (statuses[:100], statuses[100]) == ([201] * 100, 409)


async def test_a_body_with_too_many_events_is_refused(lite: Served) -> None:
    answer = await lite.call("POST", "/api/webhooks", {"url": "https://receiver.invalid/", "events": ["*"] * 101})
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "events")
