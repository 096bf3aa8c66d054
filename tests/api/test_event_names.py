"""Every event that can be raised today is raised once, by what raises it, and fits its schema."""

import anyio
import pytest

from plughub.events.catalogue import WEBHOOK_DISABLED
from plughub.events.published import PUBLISHED
from plughub.identity.invitations import invite
from plughub.jobs.announce_keys import announce
from plughub.upstream.target import Target
from plughub.usage.watch import watch
from tests.events.schemas import check_log
from tests.oauth.flow import Flow
from tests.serving import FakeMcp, Served, upstream
from tests.walks.rows import team

pytestmark = pytest.mark.anyio
# A webhook is given up where there is a receiver: tests/webhooks/test_deliverer.py holds that one against its schema.
EXPECTED = set(PUBLISHED) - {WEBHOOK_DISABLED}


async def changes(served: Served) -> None:
    """Servers, projects, profiles and keys: made, changed and gone; and a server that cannot be reached."""
    down = {"name": "Down", "type": "STDIO", "config": {"command": "/nonexistent/command"}}
    assert (await served.call("POST", "/api/servers", down)).status_code == 201
    off = {"name": "Off", "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/mcp"}, "enabled": False}
    gone = (await served.call("POST", "/api/servers", off)).json()["uuid"]
    installed = (await served.call("POST", "/api/registry/install", {"server_name": "weather-server"})).json()["uuid"]
    project = (await served.call("POST", "/api/projects", {"name": "P"})).json()["uuid"]
    document = (await served.call("POST", "/api/documents", {"title": "D", "content": "Words"})).json()["id"]
    profile = (await served.call("POST", "/api/profiles", {"name": "P", "project_uuid": project})).json()["uuid"]
    listed = {"name": "C", "profileUuid": profile, "serverUuids": [gone]}
    collection = (await served.call("POST", "/api/collections", listed)).json()["uuid"]
    made = (await served.call("POST", "/api/auth/keys", {"name": "K"})).json()["id"]
    for method, path, body in (
        ("PATCH", f"/api/servers/{gone}", {"name": "Renamed"}),
        ("PUT", f"/api/profiles/{profile}/servers/{gone}", {}),
        ("DELETE", f"/api/servers/{gone}", None),
        ("DELETE", f"/api/servers/{installed}", None),
        ("POST", f"/api/collections/{collection}/share", None),
        ("DELETE", f"/api/collections/{collection}/share", None),
        ("PATCH", f"/api/collections/{collection}", {"name": "D", "isPublic": True}),
        ("DELETE", f"/api/collections/{collection}", None),
        ("PATCH", f"/api/documents/{document}", {"tags": ["new"]}),
        ("DELETE", f"/api/documents/{document}", None),
        ("PATCH", f"/api/projects/{project}", {"name": "Q"}),
        ("PATCH", f"/api/profiles/{profile}", {"name": "Q"}),
        ("DELETE", f"/api/profiles/{profile}", None),
        ("DELETE", f"/api/projects/{project}", None),
        ("POST", f"/api/auth/keys/{made}/rotate", {}),
        ("PATCH", f"/api/auth/keys/{made}", {"expires_at": "2027-01-16T00:00:00Z"}),
        ("PATCH", f"/api/auth/keys/{made}", {"status": "suspended"}),
        ("DELETE", f"/api/auth/keys/{made}", None),
    ):
        answer = await served.call(method, path, body)
        assert answer.status_code < 300, f"{method} {path}: {answer.text}"
    soon = await served.call("POST", "/api/auth/keys", {"name": "soon over", "expires_at": "2027-02-20T00:00:00Z"})
    assert soon.status_code == 201


async def people(served: Served) -> None:
    """Members, invitations, apps and what is allowed them."""
    made = await team(served)
    organization = f"/api/organizations/{made['organization']}"
    owner = await served.browser(await served.operator())
    app = await Flow.app(served, owner)
    await app.tokens(scope="read:servers")
    grant = (await served.call("GET", "/api/oauth/grants", key=owner)).json()["grants"][0]["id"]
    invited = await served.call("POST", f"{organization}/invitations", {"email": "new@example.com", "role": "viewer"})
    assert invited.status_code == 201, invited.text
    guest = await served.browser(await served.organization("Guests"), email="guest@example.com")
    caller = (await served.operator()).founder()
    async with served.database.unit_of_work() as uow:
        _, token = await invite(uow, served.app.hub.sealer, caller, "guest@example.com", "member", mails=False)
    joined = await served.call("POST", "/api/invitations/accept", {"token": token}, key=guest)
    assert joined.status_code == 200, joined.text
    for method, path, body in (
        ("PATCH", f"/api/oauth/apps/{app.client_id}", {"name": "Other"}),
        ("DELETE", f"/api/oauth/grants/{grant}", None),
        ("DELETE", f"/api/oauth/apps/{app.client_id}", None),
        ("PATCH", f"{organization}/members/{made['member']}", {"role": "viewer"}),
        ("DELETE", f"{organization}/members/{made['member']}", None),
        ("DELETE", f"{organization}/invitations/{made['invitation']}", None),
    ):
        answer = await served.call(method, path, body, key=owner if "grants" in path else None)
        assert answer.status_code < 300, f"{method} {path}: {answer.text}"


@pytest.mark.requirement("events.schemas")
async def test_every_event_is_raised_and_as_promised(lite: Served) -> None:
    await changes(lite)
    await people(lite)
    async with upstream(lite, FakeMcp(results={"echo": {"code": -32000, "message": "no"}})) as failing:
        for server, status in ((lite.demo_id, 200), (failing["uuid"], 502)):
            answer = await lite.call("POST", f"/api/servers/{server}/tools/echo/execute", {"parameters": {"text": "x"}})
            assert answer.status_code == status, answer.text
    limited = await lite.key_of(await lite.organization("Alarmed", "enterprise", limits={"hourly": 10}))
    for _ in range(9):
        await lite.call("GET", "/api/servers", key=limited)
    organization = await lite.operator()
    watched = await lite.call("POST", "/api/alerts", {"metric": "calls", "threshold": 1, "window": 300})
    assert watched.status_code == 201, watched.text
    await lite.app.hub.writer.flush()
    await watch(lite.database, lite.app.hub.sealer)
    lite.clock.advance(20 * 86_400)
    await watch(lite.database, lite.app.hub.sealer)
    target = Target(lite.demo_id, organization.live_space_id, "", "weather-server", "STDIO", 1)
    lite.app.wiring.status(target, "error", "it fell")
    async with lite.database.unit_of_work() as uow:
        assert await announce(uow, 100)
    names: set[str] = set()
    with anyio.move_on_after(10):
        while not names >= EXPECTED:
            names = await check_log(lite.database)
    assert EXPECTED - names == set()
