"""People as they show themselves: nothing until they say so, and under a name that is theirs alone."""

import asyncio

import pytest

from plughub.api import user_shapes as shapes
from plughub.identity.service import Organization
from tests.oauth.flow import Flow
from tests.serving import Browser, Json, Served

pytestmark = pytest.mark.anyio
PROFILE = "/api/profile"


@pytest.fixture(scope="module")
async def team(served: Served) -> Organization:
    return await served.organization("Shown Team")


async def change(served: Served, somebody: Browser, status: int = 200, **body: object) -> Json:
    answer = await served.call("PATCH", PROFILE, body, key=somebody)
    assert answer.status_code == status, answer.text
    found: Json = answer.json()
    return found


@pytest.mark.requirement("users.nothing-by-default", "users.own-profile")
async def test_nobody_sees_anything_of_a_person_until_they_say_so(served: Served, team: Organization) -> None:
    somebody = await served.browser(team, "viewer", "shy@example.com")
    mine = shapes.ProfileSelf.model_validate((await served.call("GET", PROFILE, key=somebody)).json())
    assert (mine.email, mine.username, mine.is_public, mine.profile_uuid) == ("shy@example.com", None, False, team.live_profile_id)
    links = {"github": "shy", "website": "https://example.com/shy"}
    await change(served, somebody, username="Shy-One", bio="A poet", social_links=links, name="Shy Person")
    assert (await served.call("GET", "/api/users/shy-one", key="")).status_code == 404
    await change(served, somebody, is_public=True)
    seen = await served.call("GET", "/api/users/SHY-ONE", key="")
    shown = shapes.PublicUser.model_validate(seen.json())
    assert (shown.username, shown.bio, shown.social_links, shown.servers_count) == ("shy-one", "A poet", links, 0)
    for hidden in ("Shy Person", "shy@example.com", somebody.user_id, "Shown Team", team.id):
        assert hidden not in seen.text
    await change(served, somebody, is_public=None)
    assert (await served.call("GET", "/api/users/shy-one", key="")).status_code == 404
    taken_back = await change(served, somebody, bio=None, username=None, social_links=None)
    assert (taken_back["bio"], taken_back["username"], taken_back["social_links"], taken_back["name"]) == ("", None, {}, "Shy Person")
    assert (await served.call("GET", "/api/check-username?username=shy-one", key="")).json() == {"available": True}


@pytest.mark.requirement("users.usernames")
async def test_a_name_is_one_persons_alone_also_when_two_want_it_at_once(served: Served, team: Organization) -> None:
    people = [await served.browser(team) for _ in range(3)]
    names = ("Only-One", "on1y0ne", "onlyone")
    answers = await asyncio.gather(
        *(served.call("PATCH", PROFILE, {"username": name}, key=who) for name, who in zip(names, people, strict=True))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
    owner = people[[answer.status_code for answer in answers].index(200)]
    assert (await served.call("GET", "/api/check-username?username=0nlyone", key="")).json()["available"] is False
    await change(served, owner, username="only-1ne")  # its own likeness is not in its way
    await change(served, owner, username="another-one")
    await change(served, people[1] if owner is not people[1] else people[0], username="only-one")


@pytest.mark.requirement("users.own-profile")
async def test_what_cannot_be_shown_is_refused_by_its_name(served: Served, team: Organization) -> None:
    somebody = await served.browser(team)
    for body, field in (
        ({"avatar_url": "javascript:alert(1)"}, "avatar_url"),
        ({"avatar_url": "https://me:pw@example.com/x.png"}, "avatar_url"),
        ({"social_links": {"web": "javascript:alert(1)"}}, "social_links.web"),
        ({"social_links": {"web": "data:text/html,x"}}, "social_links.web"),
        ({"bio": "x" * 1001}, "bio"),
        ({"bio": "a\x07b"}, "bio"),
        ({"username": "me"}, "username"),
        ({"followers_count": 5}, "followers_count"),
    ):
        refused = await change(served, somebody, 400, **body)
        assert refused["error"]["details"]["field"] == field
    assert (await served.call("GET", PROFILE, key=somebody)).json()["bio"] == ""


@pytest.mark.requirement("users.own-profile")
async def test_a_key_has_no_profile_and_a_token_has_its_persons(served: Served, team: Organization) -> None:
    key, somebody = await served.key_of(team, "test"), await served.browser(team)
    mine = (await served.call("GET", PROFILE, key=key)).json()
    assert (mine["id"], mine["environment"], mine["profile_uuid"]) == (None, "test", team.test_profile_id)
    refused = await served.call("PATCH", "/api/users/profile", {"bio": "x"}, key=key)
    assert (refused.status_code, refused.json()["error"]["details"]["reason"]) == (403, "person_required")
    app = await Flow.app(served, somebody, await served.key_of(team))
    token = (await app.tokens(scope="read:profile write:profile"))["access_token"]
    changed = await served.call("PATCH", "/api/users/profile", {"bio": "By an app"}, key=token)
    assert changed.status_code == 200, changed.text
    assert (await served.call("GET", PROFILE, key=token)).json()["bio"] == "By an app"


@pytest.mark.requirement("users.nothing-by-default")
async def test_servers_count_is_of_what_the_person_has_made_public(served: Served, team: Organization) -> None:
    key, somebody = await served.key_of(team), await served.browser(team)
    servers = [(await served.register(f"Counted {n}", "http://127.0.0.1:9/mcp", key=key))["uuid"] for n in range(3)]
    for of, public in ((servers[:2], True), (servers[1:2], True), (servers[2:], False)):
        await served.call("POST", "/api/collections", {"name": "x", "serverUuids": of, "isPublic": public}, key=somebody)
    await served.call("POST", "/api/collections", {"name": "x", "serverUuids": servers, "isPublic": True}, key=key)
    await change(served, somebody, username="counting", is_public=True)
    assert (await served.call("GET", "/api/users/counting", key="")).json()["servers_count"] == 2
