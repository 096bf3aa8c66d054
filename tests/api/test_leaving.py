"""Who leaves: accounts and organisations are removed on one way, and nothing of them is left behind. On both databases."""

import json
from dataclasses import replace
from typing import Any

import anyio
import httpx2
import pytest
from pyotp import TOTP
from sqlalchemy import LargeBinary, Table, select
from sqlalchemy import String as Text

from plughub.api import leaving_shapes as shapes
from plughub.db.tables import metadata
from plughub.events.audit_check import verify
from plughub.identity.people import insert_membership
from plughub.identity.service import Organization, get_organization
from plughub.jobs import remove_organization
from plughub.jobs.loop import JobLoop
from plughub.kit.ids import parse_public_id, public_id
from plughub.leaving.organization import GRACE_S, KEPT, finish_removal
from plughub.leaving.schemas import OrganizationDocument
from tests.api.test_auth import account, logged_in
from tests.oauth.flow import Flow
from tests.serving import PASSWORD, Browser, Json, Served
from tests.walks.rows import Things, placed

pytestmark = pytest.mark.anyio
ACCOUNT = "/api/settings/account"
# What names somebody or something by an id of its own.
COLUMNS = ("organization_id", "space_id", "person_id", "user_id", "created_by", "server_id", "profile_id", "project_id", "key_id", "id")


async def left(served: Served, *names: str, ids: tuple[str, ...] = ()) -> list[str]:
    """Where a value stands in any text of any table, or an id in any column of ids; the signed audit is looked at elsewhere."""
    found = []
    async with served.database.read() as connection:
        for table in metadata.sorted_tables:
            if table.name in KEPT:
                continue
            for row in (await connection.execute(select(table))).mappings():
                found += [f"{table.name}.{column}" for column in _with_ids(table) if row[column] in ids]
                found += [
                    f"{table.name}.{column}" for column, value in row.items() if any(name in _text(table, column, value) for name in names)
                ]
    return found


def _with_ids(table: Table) -> list[str]:
    return [name for name in COLUMNS if name in table.c]


def _text(table: Table, column: str, value: Any) -> str:
    if isinstance(table.c[column].type, LargeBinary) or value is None:
        return ""
    return value if isinstance(table.c[column].type, Text) else json.dumps(value, default=str)


async def removed(served: Served, somebody: Browser, *, path: str = ACCOUNT, **body: Any) -> httpx2.Response:
    return await served.call("DELETE", path, {"password": PASSWORD, **body}, key=somebody)


async def refused(served: Served, somebody: Browser, status: int, *, path: str = ACCOUNT, **body: Any) -> Json:
    answer = await removed(served, somebody, path=path, **body)
    assert answer.status_code == status, answer.text
    found: Json = answer.json()["error"]["details"]
    return found


async def furnished(served: Served, name: str) -> tuple[Organization, Browser, list[str]]:
    """An organisation with one of everything in both environments, its owner, and the secrets of its keys."""
    made = await served.organization(name)
    owner = await served.browser(made)
    secrets = []
    for environment in ("live", "test"):
        key = await served.key_of(made, environment)
        server = (await served.register(f"{name} server", "http://127.0.0.1:9/mcp", key=key))["uuid"]
        listed = (await served.call("POST", "/api/auth/keys", {"name": name, "servers": [server]}, key=key)).json()
        await served.call("POST", f"/api/auth/keys/{listed['id']}/rotate", {"overlap_seconds": 60}, key=key)
        await served.call("GET", "/api/servers", key=key)
        if environment == "live":
            await placed(served, Things(server, listed["id"]), name, key)
        secrets += [key, listed["key"]]
    return made, owner, secrets


@pytest.mark.requirement("leaving.organization", "leaving.nothing-left")
async def test_an_organisation_goes_with_all_that_is_in_it_and_nothing_else_does(served: Served) -> None:
    stays, neighbour, kept = await furnished(served, "Staying")
    async with served.database.read() as connection:
        before = {table.name: len((await connection.execute(select(table))).all()) for table in metadata.sorted_tables}
    goes, owner, secrets = await furnished(served, "Leaving canary-51c")
    member = await served.browser(goes, "member", "canary-member@example.com")
    path = f"/api/organizations/{public_id('org', goes.id)}"
    assert (await removed(served, owner, path=path)).status_code == 204
    for who in (owner, member, *secrets):
        assert (await served.call("GET", "/api/auth/me", key=who)).status_code == 401
    assert (await served.call("GET", "/api/collections/public?q=canary", key="")).json()["total"] == 0
    seen = await served.call("GET", "/api/audit-logs?action=organization.deleted&limit=1")
    assert seen.json()["audit_logs"][0]["object"]["name"] == "Leaving canary-51c", "the operator's audit tells of it"
    await served.app.hub.writer.flush()
    await served.app.hub.uses.flush()
    spaces = (goes.live_space_id, goes.test_space_id)
    assert {place.partition(".")[0] for place in await left(served, ids=(goes.id, *spaces))} == {"event", "space", "organization"}
    served.clock.advance(GRACE_S)
    jobs = JobLoop(served.database, {remove_organization.KIND: remove_organization.handler()})
    with anyio.fail_after(20):
        while await left(served, ids=(goes.id,)):  # the hub's own loop may be at it already
            await jobs.run_due()
    await finish_removal(served.database, goes.id)  # a job may run twice
    assert await left(served, "canary-51c", ids=(goes.id, *spaces)) == []
    async with served.database.read() as connection:
        after = {table.name: len((await connection.execute(select(table))).all()) for table in metadata.sorted_tables}
    grows = {"person", "event", "audit", "audit_head", "job", "attempt", "node", "key_address"}  # of those who stay
    assert {name for name in after if after[name] != before[name]} <= grows
    assert after["person"] > before["person"], "its people stay, and are somewhere else from their next login on"
    for secret in kept[::2]:  # the others were rotated, and their time is over
        assert (await served.call("GET", "/api/auth/me", key=secret)).status_code == 200
    assert (await served.call("GET", "/api/auth/me", key=neighbour)).json()["organization"]["name"] == stays.name
    chain = served.database.chain
    assert chain is not None
    assert {verdict.reason async for verdict in verify(served.database, chain)} == {None}


@pytest.mark.requirement("leaving.organization")
async def test_only_its_owner_removes_an_organisation_and_nobody_the_operators(served: Served) -> None:
    team = await served.organization("Kept Team")
    path = f"/api/organizations/{public_id('org', team.id)}"
    admin, stranger = await served.browser(team, "admin"), await served.browser(await served.organization("Elsewhere"))
    assert (await refused(served, admin, 403, path=path))["reason"] == "owners_only"
    await refused(served, stranger, 404, path=path)
    await refused(served, await served.browser(team), 401, path=path, password="not the password")
    operator = await served.operator()
    owner = await served.browser(operator)
    details = await refused(served, owner, 409, path=f"/api/organizations/{public_id('org', operator.id)}")
    assert details["reason"] == "operator_organization"
    assert (await served.call("GET", path, key=admin)).json()["name"] == "Kept Team"


@pytest.mark.requirement("leaving.account", "leaving.nothing-left", "leaving.audit-names-nobody")
async def test_an_account_goes_and_nothing_that_names_it_is_left(served: Served) -> None:
    email = "canary-77e@example.com"
    await account(served, email)
    somebody = await logged_in(served, email)
    me = (await served.call("GET", "/api/auth/me", key=somebody)).json()
    somebody, own = (
        replace(somebody, user_id=parse_public_id("user", me["user"]["id"]) or ""),
        parse_public_id("org", me["organization"]["id"]) or "",
    )
    team = await served.organization("Left Behind")
    team_owner = await served.browser(team)
    async with served.database.unit_of_work() as uow:
        await insert_membership(uow, team.id, somebody.user_id, "admin")
    await served.call("PATCH", "/api/profile", {"username": "canary-77e", "bio": "canary-77e", "name": "canary-77e"}, key=somebody)
    await served.call("POST", f"/api/organizations/{public_id('org', team.id)}/switch", key=somebody)
    kept = (await served.call("POST", "/api/auth/keys", {"name": "left"}, key=somebody)).json()["key"]
    collection = (await served.call("POST", "/api/collections", {"name": "left"}, key=somebody)).json()["uuid"]
    invited = {"email": "guest@example.com", "role": "member"}
    await served.call("POST", f"/api/organizations/{public_id('org', team.id)}/invitations", invited, key=somebody)
    await served.call("POST", f"/api/organizations/{public_id('org', own)}/switch", key=somebody)
    invited = {"email": email, "role": "viewer"}
    elsewhere = await served.organization("Inviting")
    inviting = f"/api/organizations/{public_id('org', elsewhere.id)}/invitations"
    assert (await served.call("POST", inviting, invited, key=await served.browser(elsewhere))).status_code == 201
    app = await Flow.app(served, somebody, await served.key_of(team))
    token = (await app.tokens(scope="read:servers"))["access_token"]
    assert (await refused(served, somebody, 409))["organizations"][0]["id"] == public_id("org", own)
    asked = await refused(served, somebody, 409, organizations="delete")
    assert (asked["reason"], [key["name"] for key in asked["keys"]]) == ("keys", ["left"])
    await refused(served, somebody, 401, password="not the password", organizations="delete", keys="keep")
    assert (await served.call("GET", "/api/auth/me", key=somebody)).status_code == 200, "nothing has happened yet"
    gone = await removed(served, somebody, organizations="delete", keys="keep")
    assert gone.status_code == 204 and "plughub=" in gone.headers["set-cookie"]
    for who, status in ((somebody, 401), (token, 401), (kept, 200)):
        assert (await served.call("GET", "/api/auth/me", key=who)).status_code == status
    assert (await served.call("GET", f"/api/collections/{collection}", key=kept)).status_code == 200
    again = {"email": email, "password": PASSWORD}
    assert (await served.call("POST", "/api/auth/login", again, key="")).status_code == 401
    await served.app.hub.writer.flush()
    await finish_removal(served.database, own)
    assert await left(served, "canary-77e", ids=(somebody.user_id, own)) == []
    audited = (await served.call("GET", "/api/audit-logs?limit=100", key=team_owner)).text
    exported = (await served.call("GET", "/api/audit-logs/export", key=team_owner)).text
    assert "member.removed" in audited and "canary-77e" not in audited + exported
    assert "guest@example.com" in audited, "what names others stays"
    chain = served.database.chain
    assert chain is not None
    assert {verdict.reason async for verdict in verify(served.database, chain)} == {None}


@pytest.mark.requirement("leaving.account")
async def test_the_last_owner_stays_until_there_is_another_and_a_second_factor_is_asked_for(served: Served) -> None:
    team = await served.organization("Owned Once")
    owner = await served.browser(team)
    member = await served.browser(team, "member")
    details = await refused(served, owner, 409, organizations="delete")
    assert (details["reason"], details["organizations"][0]["name"]) == ("last_owner", "Owned Once")
    at = f"/api/organizations/{public_id('org', team.id)}/members/{public_id('user', member.user_id)}"
    assert (await served.call("PATCH", at, {"role": "owner"}, key=owner)).status_code == 200
    secret = (await served.call("POST", "/api/auth/totp", {"password": PASSWORD}, key=owner)).json()["secret"]
    code, later = (TOTP(secret).generate_otp(int(served.clock.time()) // 30 + step) for step in (0, 1))
    assert (await served.call("POST", "/api/auth/totp/confirm", {"code": code}, key=owner)).status_code == 200
    made = (await served.call("POST", "/api/auth/keys", {"name": "going"}, key=owner)).json()["key"]
    assert (await refused(served, owner, 401, keys="revoke"))["reason"] == "code_required"
    assert (await refused(served, owner, 401, keys="revoke", code="000000"))["reason"] == "code_wrong"
    assert (await removed(served, owner, keys="revoke", code=later)).status_code == 204
    assert (await served.call("GET", "/api/servers", key=made)).status_code == 410
    assert (await served.call("GET", at.rpartition("/")[0], key=member)).json()["total"] == 1
    async with served.database.read() as connection:
        assert (await get_organization(connection, team.id)).name == "Owned Once"


@pytest.mark.requirement("leaving.export")
async def test_an_organisation_takes_its_configuration_along_without_a_secret(served: Served) -> None:
    made, owner, secrets = await furnished(served, "Exporting")
    config = {"url": "https://me:hidden-1@example.com/mcp?k=hidden-2", "headers": {"A": "hidden-3"}}
    guarded = {"name": "Guarded", "type": "SSE", "config": config, "enabled": False}
    assert (await served.call("POST", "/api/servers", guarded, key=owner)).status_code == 201
    answer = await served.call("GET", "/api/export", key=owner)
    found = OrganizationDocument.model_validate(answer.json())
    assert "hidden-" not in answer.text and not [secret for secret in secrets if secret in answer.text]
    assert [server.slug for server in found.servers] == ["exporting-server", "guarded"]
    assert [project.name for project in found.projects] == ["Default", "Exporting"]
    placed_in = found.projects[1].profiles[1].servers
    assert [(member.server, member.home) for member in placed_in] == [("exporting-server", False)]
    assert [(key.name, key.servers) for key in found.keys] == [("test", "*"), ("Exporting", ["exporting-server"])]
    assert found.collections[0].servers == ["exporting-server"] and len(found.placeholders) == 3
    other = OrganizationDocument.model_validate((await served.call("GET", "/api/export", key=secrets[2])).json())
    assert other.environment == "test" and [server.slug for server in other.servers] == ["exporting-server"]
    listed = await served.key_of(made, servers=[])
    refusal = await served.call("GET", "/api/export", key=listed)
    assert (refusal.status_code, refusal.json()["error"]["details"]["reason"]) == (403, "server_list")
    audited = (await served.call("GET", "/api/audit-logs?action=organization.exported", key=owner)).json()["audit_logs"]
    assert audited[-1]["note"] == {"servers": 2, "keys": 2, "collections": 1}


@pytest.mark.requirement("leaving.export")
async def test_a_person_takes_their_own_data_along_and_nothing_of_others(served: Served) -> None:
    made, owner, _ = await furnished(served, "Personal")
    key = (await served.call("POST", "/api/auth/keys", {"name": "my own"}, key=owner)).json()
    await served.call("POST", "/api/collections", {"name": "my own"}, key=owner)
    await served.call("PATCH", "/api/profile", {"username": "personal", "bio": "About me"}, key=owner)
    answer = await served.call("GET", f"{ACCOUNT}/export", key=owner)
    found = shapes.PersonExport.model_validate(answer.json())
    assert (found.user["id"], found.profile["bio"]) == (public_id("user", owner.user_id), "About me")
    assert [(place["id"], place["role"]) for place in found.organizations] == [(public_id("org", made.id), "owner")]
    assert [one["id"] for one in found.keys] == [key["id"]] and [one["name"] for one in found.collections] == ["my own"]
    assert key["key"] not in answer.text and "argon2" not in answer.text


def comparable(found: Json) -> Json:
    """An export without what is of its own hub and time."""
    kept = {name: value for name, value in found.items() if name not in ("exported_at", "organization", "keys", "placeholders")}
    return json.loads(json.dumps(kept)) | {"projects": sorted(kept["projects"], key=lambda project: str(project["name"]))}


@pytest.mark.requirement("leaving.import")
async def test_what_was_exported_is_made_anew_elsewhere_or_not_at_all(served: Served) -> None:
    _, owner, secrets = await furnished(served, "Moving")
    config = {"url": "https://example.com/mcp?k=hidden-2", "headers": {"A": "hidden-3"}}
    profile = (await served.call("GET", "/api/profiles?limit=100", key=owner)).json()["profiles"][-1]
    guarded = {"name": "Guarded", "type": "SSE", "config": config, "enabled": False, "profile_uuid": profile["uuid"]}
    assert (await served.call("POST", "/api/servers", guarded, key=owner)).status_code == 201
    tools = {"enabled": False, "tools": {"echo": {"name": "say"}}}
    put = await served.call("PUT", f"/api/profiles/{profile['uuid']}/servers/{profile['servers'][0]['uuid']}", tools, key=owner)
    assert put.status_code == 200, put.text
    document = (await served.call("GET", "/api/export", key=owner)).json()
    key = await served.key_of(await served.organization("Moved"))
    asked = await served.call("POST", "/api/import", {"document": document}, key=key)
    assert [told["field"] for told in asked.json()["error"]["details"]["errors"]] == ["values.A", "values.K"]
    values = {"A": "mine", "K": "mine"}
    wrong = document | {"collections": [document["collections"][0] | {"servers": ["nowhere"]}]}
    lost = await served.call("POST", "/api/import", {"document": wrong, "values": values}, key=key)
    assert lost.json()["error"]["details"]["field"] == "document.collections.0.servers"
    twice = document | {"servers": [document["servers"][0]] * 2}
    assert (await served.call("POST", "/api/import", {"document": twice, "values": values}, key=key)).status_code == 400
    command = document["servers"][0] | {"slug": "c", "type": "STDIO", "config": {"command": "x"}}
    forbidden = await served.call(
        "POST", "/api/import", {"document": document | {"servers": [*document["servers"], command]}, "values": values}, key=key
    )
    assert (forbidden.status_code, forbidden.json()["error"]["details"]["reason"]) == (403, "stdio_not_allowed")
    for listed in ("servers", "collections"):
        assert (await served.call("GET", f"/api/{listed}", key=key)).json()["total"] == 0
    done = await served.call("POST", "/api/import", {"document": document, "values": values}, key=key)
    assert done.status_code == 200, done.text
    settled = shapes.SettledOut.model_validate(done.json())
    assert set(settled.servers) == {"moving-server", "guarded"} and settled.keys_left_out == ["test", "Moving"]
    assert comparable((await served.call("GET", "/api/export", key=key)).json()) == comparable(document)
    assert secrets
