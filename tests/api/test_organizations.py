"""Organisations: who is in them, who may change that, and what goes with somebody who leaves."""

import asyncio

import httpx2
import pytest

from plughub.api import organization_shapes as shapes
from plughub.identity.people import insert_membership
from plughub.identity.service import Organization
from plughub.kit.ids import public_id
from tests.api.test_auth import AUTH, account, cookie_of, deliver, logged_in, post
from tests.serving import PASSWORD, Browser, Served

pytestmark = pytest.mark.anyio
ORGANIZATIONS = "/api/organizations"


def at(organization: Organization, rest: str = "") -> str:
    return f"{ORGANIZATIONS}/{public_id('org', organization.id)}{rest}"


def member(organization: Organization, somebody: Browser) -> str:
    return at(organization, f"/members/{public_id('user', somebody.user_id)}")


def token_of(invited: httpx2.Response) -> str:
    assert invited.status_code == 201, invited.text
    made = shapes.InvitedOut.model_validate(invited.json())
    return made.invite_url.rpartition("token=")[2]


@pytest.mark.requirement("people.members-and-roles", "people.registration-modes")
async def test_somebody_is_invited_registers_and_is_in(served: Served) -> None:
    team = await served.organization("Engines")
    owner = await served.browser(team)
    token = token_of(await served.call("POST", at(team, "/invitations"), {"email": "Grace@Example.com", "role": "member"}, key=owner))
    listed = (await served.call("GET", at(team, "/invitations"), key=owner)).json()
    assert [one["email"] for one in listed["invitations"]] == ["grace@example.com"] and token not in str(listed)
    other = await post(served, "/register", {"name": "x", "email": "other@example.com", "password": PASSWORD, "invitation": token})
    assert (other.status_code, other.json()["error"]["details"]["reason"]) == (403, "other_address")
    made = await post(served, "/register", {"name": "Grace", "email": "grace@example.com", "password": PASSWORD, "invitation": token})
    assert made.status_code == 201, made.text
    again = await post(served, "/register", {"name": "x", "email": "grace2@example.com", "password": PASSWORD, "invitation": token})
    assert again.status_code == 404, "a link is good once"
    grace = await logged_in(served, "grace@example.com")
    places = (await served.call("GET", ORGANIZATIONS, key=grace)).json()["organizations"]
    assert [(place["name"], place["role"]) for place in places] == [("Engines", "member"), ("Grace", "owner")]
    await served.call("POST", f"{ORGANIZATIONS}/{places[1]['id']}/switch", key=grace)
    assert (await served.call("GET", at(team), key=grace)).status_code == 404, "the session acts for the other one"
    switched = await served.call("POST", at(team, "/switch"), key=grace)
    shapes.SwitchedOut.model_validate(switched.json())
    assert (await served.call("GET", at(team), key=grace)).json()["role"] == "member"
    refused = await served.call("GET", at(team, "/members"), key=grace)
    assert (refused.status_code, refused.json()["error"]["details"]["required_scope"]) == (403, "admin")


@pytest.mark.requirement("people.members-and-roles")
async def test_an_invitation_is_accepted_by_its_address_alone_within_seven_days(served: Served) -> None:
    team = await served.organization("Seven Days")
    owner, other = await served.browser(team), await served.organization("Home")
    invited = await served.browser(other, email="invited7@example.com")
    stranger = await served.browser(other)
    body = {"email": "invited7@example.com", "role": "admin"}
    older = token_of(await served.call("POST", at(team, "/invitations"), body, key=owner))
    token = token_of(await served.call("POST", at(team, "/invitations"), body, key=owner))
    accept = "/api/invitations/accept"
    assert (await served.call("POST", accept, {"token": older}, key=invited)).status_code == 404, "the newer one replaces it"
    wrong = await served.call("POST", accept, {"token": token}, key=stranger)
    assert (wrong.status_code, wrong.json()["error"]["details"]["reason"]) == (403, "other_address")
    answers = await asyncio.gather(*(served.call("POST", accept, {"token": token}, key=invited) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 404]
    assert (await served.call("GET", at(team, "/members"), key=invited)).json()["total"] == 2
    known = await served.call("POST", at(team, "/invitations"), body, key=owner)
    assert known.status_code == 409
    late = token_of(await served.call("POST", at(team, "/invitations"), {"email": "late@example.com"}, key=owner))
    withdrawn = (await served.call("POST", at(team, "/invitations"), {"email": "w@example.com"}, key=owner)).json()
    assert (await served.call("DELETE", at(team, f"/invitations/{withdrawn['id']}"), key=owner)).status_code == 204
    fresh = await served.browser(other, email="w@example.com")
    assert (await served.call("POST", accept, {"token": withdrawn["invite_url"].rpartition("=")[2]}, key=fresh)).status_code == 404
    if served.database.kind == "sqlite":
        served.clock.advance(7 * 86_400 + 1)
        late_one = await served.browser(other, email="late@example.com")
        assert (await served.call("POST", accept, {"token": late}, key=late_one)).status_code == 404


@pytest.mark.requirement("people.members-and-roles")
async def test_owners_are_made_and_unmade_by_owners_and_one_is_always_left(served: Served) -> None:
    team = await served.organization("Owned")
    owner, admin, viewer = await served.browser(team), await served.browser(team, "admin"), await served.browser(team, "viewer")
    key = await served.key_of(team)
    for who in (admin, key):
        for path, body in ((member(team, owner), {"role": "viewer"}), (member(team, viewer), {"role": "owner"})):
            refused = await served.call("PATCH", path, body, key=who)
            assert (refused.status_code, refused.json()["error"]["details"]["reason"]) == (403, "owners_only")
        invited = await served.call("POST", at(team, "/invitations"), {"email": "o@example.com", "role": "owner"}, key=who)
        assert invited.status_code == 403
        assert (await served.call("DELETE", member(team, owner), key=who)).status_code == 403
    for method, path, body in (
        ("PATCH", member(team, owner), {"role": "admin"}),
        ("DELETE", member(team, owner), None),
        ("POST", at(team, "/leave"), None),
    ):
        last = await served.call(method, path, body, key=owner)
        assert (last.status_code, last.json()["error"]["details"]["reason"]) == (409, "last_owner"), path
    assert (await served.call("PATCH", member(team, admin), {"role": "owner"}, key=owner)).status_code == 200
    both = await asyncio.gather(
        served.call("PATCH", member(team, owner), {"role": "member"}, key=admin),
        served.call("PATCH", member(team, admin), {"role": "member"}, key=owner),
    )
    assert 200 in [answer.status_code for answer in both]
    roles = [one["role"] for one in (await served.call("GET", at(team, "/members"), key=key)).json()["members"]]
    assert roles.count("owner") == 1


@pytest.mark.requirement("people.members-and-roles")
async def test_another_role_is_felt_from_the_next_request_on(served: Served) -> None:
    team = await served.organization("Felt")
    owner, somebody = await served.browser(team), await served.browser(team, "admin")
    assert (await served.call("POST", "/api/projects", {"name": "a"}, key=somebody)).status_code == 201
    changed = await served.call("PATCH", member(team, somebody), {"role": "viewer"}, key=owner)
    assert shapes.MemberOut.model_validate(changed.json()).role == "viewer"
    assert (await served.call("POST", "/api/projects", {"name": "b"}, key=somebody)).status_code == 403
    assert (await served.call("DELETE", member(team, somebody), key=owner)).status_code == 200
    assert (await served.call("GET", AUTH + "/me", key=somebody)).status_code == 401


@pytest.mark.requirement("people.removal-lists-keys")
async def test_the_keys_of_who_is_removed_are_listed_and_kept_or_revoked(served: Served) -> None:
    team = await served.organization("Keys Left")
    owner = await served.browser(team)
    for choice, status in (("keep", 200), ("revoke", 410)):
        somebody = await served.browser(team, "admin")
        secrets = []
        for environment in ("live", "test"):
            made = await served.call(
                "POST", "/api/auth/keys", {"name": f"{choice} {environment}"}, key=somebody, headers={"X-Plughub-Environment": environment}
            )
            secrets.append(made.json()["key"])
        asked = await served.call("DELETE", member(team, somebody), key=owner)
        assert (asked.status_code, asked.json()["error"]["details"]["reason"]) == (409, "keys")
        assert {key["name"] for key in asked.json()["error"]["details"]["keys"]} == {f"{choice} live", f"{choice} test"}
        assert (await served.call("GET", AUTH + "/me", key=somebody)).status_code == 200, "nothing has happened yet"
        done = await served.call("DELETE", member(team, somebody), {"keys": choice}, key=owner)
        removed = shapes.RemovedOut.model_validate(done.json())
        assert {key.status for key in removed.keys} == {"active" if choice == "keep" else "revoked"}
        for secret in secrets:
            assert (await served.call("GET", "/api/servers", key=secret)).status_code == status


@pytest.mark.requirement("people.members-and-roles")
async def test_what_is_narrower_than_its_organisation_changes_no_people(served: Served) -> None:
    team = await served.organization("Narrow")
    somebody = await served.browser(team, "viewer")
    for key in (await served.key_of(team, "test"), await served.key_of(team, servers=[])):
        assert (await served.call("GET", at(team), key=key)).json()["name"] == "Narrow"
        assert (await served.call("GET", at(team, "/members"), key=key)).json()["total"] == 1
        for method, path, body in (
            ("POST", at(team, "/invitations"), {"email": "x@example.com"}),
            ("PATCH", member(team, somebody), {"role": "admin"}),
            ("DELETE", member(team, somebody), None),
            ("PATCH", at(team), {"name": "Other"}),
        ):
            refused = await served.call(method, path, body, key=key)
            assert (refused.status_code, refused.json()["error"]["details"]["reason"]) == (403, "narrow_key"), path


@pytest.mark.requirement("people.members-and-roles")
async def test_somebody_who_was_in_one_organisation_alone_gets_their_own_at_the_next_login(served: Served) -> None:
    team = await served.organization("Only One")
    await served.browser(team)
    leaver = await served.browser(team, "member", "leaver@example.com")
    assert (await served.call("POST", at(team, "/leave"), key=leaver)).status_code == 204
    assert (await served.call("GET", AUTH + "/me", key=leaver)).status_code == 401
    back = await logged_in(served, "leaver@example.com")
    assert (await served.call("GET", AUTH + "/me", key=back)).json()["organization"] | {"id": 0, "slug": 0} == {
        "id": 0,
        "slug": 0,
        "name": "Ada",
        "role": "owner",
    }


@pytest.mark.requirement("people.members-and-roles")
async def test_an_organisation_is_made_switched_to_and_renamed(served: Served) -> None:
    email = "founder@example.com"
    await account(served, email)
    founder = cookie_of(await post(served, "/login", {"email": email, "password": PASSWORD}))
    made = shapes.OrganizationOut.model_validate((await served.call("POST", ORGANIZATIONS, {"name": "New One"}, key=founder)).json())
    assert (made.tier, made.role) == ("free", "owner")
    assert (await served.call("POST", f"{ORGANIZATIONS}/{made.id}/switch", key=founder)).status_code == 200
    changed = await served.call("PATCH", f"{ORGANIZATIONS}/{made.id}", {"name": "Newer", "description": "d"}, key=founder)
    assert (changed.json()["name"], changed.json()["description"], changed.json()["slug"]) == ("Newer", "d", "new-one")
    shown = (await served.call("GET", "/v1/organization", key=founder)).json()["data"]
    assert (shown["name"], shown["usage"]["team_members"]) == ("Newer", 1)
    assert (
        await served.call("POST", f"{ORGANIZATIONS}/{public_id('org', (await served.operator()).id)}/switch", key=founder)
    ).status_code == 404


@pytest.mark.requirement("people.mail")
async def test_the_operator_has_the_links_of_invitations_where_there_is_no_mail(served: Served) -> None:
    team = await served.organization("Linked")
    owner = await served.browser(team)
    token = token_of(await served.call("POST", at(team, "/invitations"), {"email": "linked@example.com"}, key=owner))
    assert ("invitation", "linked@example.com", token) in {(found.kind, found.email, found.token) for found in await deliver(served)}


async def test_a_person_of_two_organisations_has_one_role_in_each(served: Served) -> None:
    one, two = await served.organization("First"), await served.organization("Other")
    somebody = await served.browser(one, "owner")
    async with served.database.unit_of_work() as uow:
        await insert_membership(uow, two.id, somebody.user_id, "viewer")
    assert (await served.call("POST", at(two, "/switch"), key=somebody)).status_code == 200
    assert (await served.call("POST", "/api/projects", {"name": "x"}, key=somebody)).status_code == 403
    assert (await served.call("POST", at(one, "/switch"), key=somebody)).status_code == 200
    assert (await served.call("POST", "/api/projects", {"name": "x"}, key=somebody)).status_code == 201
