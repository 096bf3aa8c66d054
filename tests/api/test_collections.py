"""Collections over REST: handed on by a link or to everybody, and taken into a profile, without a secret on the way."""

import asyncio
import json

import httpx2
import pytest
from sqlalchemy import insert

from plughub.api import collection_shapes as shapes
from plughub.collections import service
from plughub.db.collection_tables import collection
from plughub.events.log import list_since
from plughub.identity.service import Organization
from plughub.kit.ids import new_id
from tests.serving import Json, Served

pytestmark = pytest.mark.anyio
PATH = "/api/collections"
SECRET = "s3cret-9f2c"
CONFIG = {"url": f"https://user:{SECRET}@example.com/mcp?token={SECRET}", "headers": {"Authorization": f"Bearer {SECRET}"}}
VALUES = {"URL_USER": "me:pw", "TOKEN": "a&b", "AUTHORIZATION": "Bearer mine"}


async def remote(served: Served, key: str, name: str = "Remote") -> str:
    made = await served.call("POST", "/api/servers", {"name": name, "type": "SSE", "config": CONFIG, "enabled": False}, key=key)
    assert made.status_code == 201, made.text
    return str(made.json()["uuid"])


async def collected(served: Served, key: str, *servers: str, **given: object) -> Json:
    made = await served.call("POST", PATH, {"name": "Tools", "serverUuids": list(servers), **given}, key=key)
    assert made.status_code == 201, made.text
    shapes.CollectionOut.model_validate(made.json())
    found: Json = made.json()
    return found


async def take(served: Served, key: str, body: Json, query: str = "") -> httpx2.Response:
    return await served.call("POST", f"{PATH}/import{query}", body, key=key)


async def events(served: Served, organization: Organization) -> list[str]:
    async with served.database.read() as connection:
        return [event.name for event in await list_since(connection, organization.live_space_id, 0) if event.name.startswith("collection.")]


@pytest.mark.requirement("collections.crud", "collections.events")
async def test_a_collection_is_made_changed_and_removed_and_its_servers_stay(served: Served) -> None:
    mine = await served.organization("Mine")
    key = await served.key_of(mine)
    one, two = await remote(served, key, "One"), await remote(served, key, "Two")
    made = await collected(served, key, two, one, two)
    assert made["serverUuids"] == [two, one] and made["profileUuid"] == mine.live_profile_id
    at = f"{PATH}/{made['uuid']}"
    changed = await served.call("PATCH", at, {"serverUuids": [one, two], "isPublic": True, "description": "d"}, key=key)
    assert (changed.json()["serverUuids"], changed.json()["isPublic"]) == ([one, two], True)
    assert (await served.call("DELETE", f"/api/servers/{one}", key=key)).status_code == 204
    assert (await served.call("GET", at, key=key)).json()["serverUuids"] == [two]
    profile = (await served.call("POST", "/api/profiles", {"name": "P"}, key=key)).json()["uuid"]
    assert (await served.call("PATCH", at, {"profile_uuid": profile}, key=key)).json()["profileUuid"] == profile
    assert (await served.call("GET", f"{PATH}/{profile}", key=key)).json()["collections"][0]["uuid"] == made["uuid"]
    assert (await served.call("GET", f"{PATH}/{mine.live_profile_id}", key=key)).json()["collections"] == []
    assert (await served.call("DELETE", f"/api/profiles/{profile}", key=key)).status_code == 204
    assert (await served.call("GET", at, key=key)).json()["profileUuid"] is None, "it outlives its profile"
    assert (await served.call("DELETE", at, key=key)).status_code == 204
    assert (await served.call("GET", at, key=key)).status_code == 404
    assert (await served.call("GET", f"/api/servers/{two}", key=key)).status_code == 200
    names = ["created", "updated", "published", "updated", "deleted"]
    assert await events(served, mine) == [f"collection.{name}" for name in names]


@pytest.mark.requirement("collections.isolation")
async def test_nobody_else_sees_it_and_a_key_with_a_list_only_what_it_may(served: Served) -> None:
    mine, other = await served.organization("Mine"), await served.organization("Other")
    key = await served.key_of(mine)
    one, two = await remote(served, key), await remote(served, key)
    both, empty = await collected(served, key, one, two), await collected(served, key)
    for stranger in (await served.key_of(other), await served.key_of(mine, "test")):
        assert (await served.call("GET", PATH, key=stranger)).json()["total"] == 0
        refused = await served.call("POST", PATH, {"name": "x", "serverUuids": [one]}, key=stranger)
        assert (refused.status_code, refused.json()["error"]["details"]["field"]) == (400, "serverUuids.0")
        for method, rest in (("GET", ""), ("GET", "/export"), ("PATCH", ""), ("DELETE", ""), ("POST", "/share"), ("DELETE", "/share")):
            body = {"name": "x"} if method == "PATCH" else None
            assert (await served.call(method, f"{PATH}/{both['uuid']}{rest}", body, key=stranger)).status_code == 404
        assert (await take(served, stranger, {"collectionUuid": both["uuid"]})).status_code == 400
        assert (await served.call("GET", f"{PATH}/{mine.live_profile_id}", key=stranger)).status_code == 404
    listed = await served.key_of(mine, servers=[two])
    seen = (await served.call("GET", PATH, key=listed)).json()
    assert [(found["uuid"], found["serverUuids"]) for found in seen["collections"]] == [(both["uuid"], [two])]
    assert len((await served.call("GET", f"{PATH}/{both['uuid']}/export", key=listed)).json()["servers"]) == 1
    assert (await served.call("GET", f"{PATH}/{empty['uuid']}", key=listed)).status_code == 404
    for method, at in (("PATCH", both["uuid"]), ("DELETE", both["uuid"])):
        refused = await served.call(method, f"{PATH}/{at}", {"name": "x"} if method == "PATCH" else None, key=listed)
        assert (refused.status_code, refused.json()["error"]["details"]["reason"]) == (403, "server_list")


@pytest.mark.requirement("collections.share", "collections.no-secrets", "collections.public")
async def test_a_link_shows_it_to_whoever_has_it_until_it_is_taken_back(served: Served) -> None:
    mine = await served.organization("Analytical Engines")
    key = await served.key_of(mine)
    made = await collected(served, key, await remote(served, key))
    at = f"{PATH}/{made['uuid']}"
    first = shapes.SharedOut.model_validate((await served.call("POST", f"{at}/share", key=key)).json())
    link = first.share_url.removeprefix("http://localhost")
    seen = await served.call("GET", link, key="")
    shown = shapes.PublicSnapshotOut.model_validate(seen.json())
    assert (shown.organization, shown.servers[0].name, seen.headers["cache-control"]) == ("Analytical Engines", "Remote", "no-store")
    for id_ in (SECRET, made["uuid"], made["serverUuids"][0], mine.id, mine.slug, mine.live_space_id):
        assert id_ not in seen.text
    assert (await served.call("GET", at, key=key)).json()["shared"] is True
    second = (await served.call("POST", f"{at}/share", key=key)).json()["share_url"].removeprefix("http://localhost")
    assert (await served.call("GET", link, key="")).status_code == 404, "a newer one replaces it"
    assert (await served.call("GET", second, key="")).status_code == 200
    assert (await served.call("DELETE", f"{at}/share", key=key)).status_code == 204
    assert (await served.call("GET", second, key="")).status_code == 404
    assert (await served.call("DELETE", f"{at}/share", key=key)).status_code == 204, "as it was"
    audited = (await served.call("GET", "/api/audit-logs?action=collection.*", key=key)).text
    assert first.share_token not in audited and SECRET not in audited


@pytest.mark.requirement("collections.public")
async def test_what_is_for_everybody_is_listed_searched_and_shown_without_a_key(served: Served) -> None:
    key = await served.key_of(await served.organization("Public Works"))
    server = await remote(served, key)
    wanted = await collected(served, key, server, name="Wörd 100%_x", description="Zephyr", isPublic=True)
    hidden = await collected(served, key, server, name="Zephyr hidden")
    for query in ("q=zephyr", "q=100%25_X"):
        page = shapes.PublicCollectionList.model_validate((await served.call("GET", f"{PATH}/public?{query}", key="")).json())
        assert [(found.uuid, found.organization, found.servers_count) for found in page.collections] == [
            (wanted["uuid"], "Public Works", 1)
        ]
    assert (await served.call("GET", f"{PATH}/public/{wanted['uuid']}", key="")).json()["organization"] == "Public Works"
    assert (await served.call("GET", f"{PATH}/public/{hidden['uuid']}", key="")).status_code == 404
    await served.call("PATCH", f"{PATH}/{wanted['uuid']}", {"isPublic": False}, key=key)
    assert (await served.call("GET", f"{PATH}/public/{wanted['uuid']}", key="")).status_code == 404


@pytest.mark.requirement("collections.import-asks-by-name", "collections.no-secrets")
async def test_it_is_taken_into_a_profile_of_another_organisation_with_values_of_its_own(served: Served) -> None:
    mine, other = await served.key_of(await served.organization("Mine")), await served.key_of(await served.organization("Other"))
    made = await collected(served, mine, await remote(served, mine), isPublic=True)
    token = (await served.call("POST", f"{PATH}/{made['uuid']}/share", key=mine)).json()["share_token"]
    document = (await served.call("GET", f"{PATH}/{made['uuid']}/export", key=mine)).json()
    assert SECRET not in json.dumps(document) and {told["name"] for told in document["placeholders"]} == set(VALUES)
    profile = (await served.call("POST", "/api/profiles", {"name": "P"}, key=other)).json()["uuid"]
    for source in ({"collectionUuid": made["uuid"]}, {"shareToken": token}, {"collection": document}):
        asked = await take(served, other, {**source, "values": {"TOKEN": "x"}})
        assert asked.status_code == 400
        assert {told["field"] for told in asked.json()["error"]["details"]["errors"]} == {"values.URL_USER", "values.AUTHORIZATION"}
        done = await take(served, other, {**source, "values": VALUES, "profileUuid": profile})
        assert done.status_code == 200, done.text
        [server] = shapes.ImportedCollection.model_validate(done.json()).imported
        assert (server.profile_uuid, server.type, server.config["url"]) == (profile, "SSE", "https://***@example.com/mcp?token=***")
    again = await take(served, other, {"shareToken": token, "values": VALUES})
    assert again.json()["renamed"] == {"Remote": "Remote-4"}
    skipped = await take(served, other, {"shareToken": token, "values": VALUES}, "?on_conflict=skip")
    assert (skipped.json()["imported"], skipped.json()["skipped"]) == ([], ["Remote"])


@pytest.mark.requirement("collections.import-whole-or-not")
async def test_all_of_it_or_nothing(served: Served) -> None:
    other = await served.key_of(await served.organization("Other"))
    good = {"name": "Good", "type": "SSE", "config": {"url": "http://127.0.0.1:9/sse"}}
    base = {"plughub": "collection", "version": 1, "name": "x"}
    command = {"name": "Command", "type": "STDIO", "config": {"command": "x"}}
    bad = {"name": "Bad", "type": "SSE", "config": {"url": "nonsense"}}
    masked = {"name": "Masked", "type": "SSE", "config": {"url": "http://x", "headers": {"A": "***"}}}
    for second, status in ((command, 403), (bad, 400), (masked, 400), ({**good, "surprise": 1}, 400)):
        refused = await take(served, other, {"collection": {**base, "servers": [good, second]}})
        assert refused.status_code == status, refused.text
    for wrong in ({**base, "servers": [good] * 101}, {**base, "version": "1", "servers": []}, {**base, "plughub": "other", "servers": []}):
        assert (await take(served, other, {"collection": wrong})).status_code == 400
    for body in ({"collection": {**base, "servers": [good]}, "shareToken": "x"}, {"shareToken": "x"}, {"collectionUuid": "x"}):
        assert (await take(served, other, body)).status_code == 400
    refused = await take(served, other, {"collection": {**base, "servers": [good]}, "profileUuid": "nope"})
    assert refused.json()["error"]["details"] | {"hint": 0} == {"field": "profileUuid", "value": "nope", "hint": 0}
    listed = await served.key_of(await served.organization("Listed"), servers=[])
    assert (await take(served, listed, {"collection": {**base, "servers": [good]}})).json()["error"]["details"]["reason"] == "server_list"
    assert (await served.call("GET", "/api/servers", key=other)).json()["total"] == 0


@pytest.mark.requirement("collections.crud")
async def test_a_space_has_so_many_collections_and_no_more(served: Served) -> None:
    many = await served.organization("Many")
    key = await served.key_of(many)
    first = {"space_id": many.live_space_id, "name": "x", "description": "", "is_public": False, "created_at": 0.0, "updated_at": 0.0}
    async with served.database.unit_of_work() as uow:
        await uow.execute(insert(collection), [{**first, "id": new_id()} for _ in range(service.MAX_COLLECTIONS - 3)])
    answers = await asyncio.gather(*(served.call("POST", PATH, {"name": str(n)}, key=key) for n in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 201, 201, 409, 409]
    assert (await served.call("POST", PATH, {"name": "x", "serverUuids": ["y"] * 101}, key=key)).status_code == 400
