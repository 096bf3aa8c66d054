"""Projects and profiles in the Plugged.in dialect."""

import pytest

from plughub.api.profile_shapes import ProfileList, ProfileOut, ProjectList, ProjectOut, ServersInProfile
from tests.serving import Json, Served

pytestmark = pytest.mark.anyio
PROJECTS, PROFILES = "/api/projects", "/api/profiles"


async def make(served: Served, path: str, **given: object) -> Json:
    answer = await served.call("POST", path, given)
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


async def server(served: Served, name: str, **given: object) -> Json:
    config = {"url": "http://127.0.0.1:1/mcp"}
    return await make(served, "/api/servers", name=name, type="STREAMABLE_HTTP", config=config, enabled=False, **given)


@pytest.mark.requirement("projects.crud", "http.times", "http.paging")
async def test_a_project_is_made_read_changed_and_removed(served: Served) -> None:
    made = await make(served, PROJECTS, name="Research", description="d", members=[])
    read = ProjectOut.model_validate(made)
    assert (read.name, read.description, read.is_default) == ("Research", "d", False)
    assert [found.uuid for found in read.profiles] == [read.default_profile_uuid]
    path = f"{PROJECTS}/{read.uuid}"
    assert (await served.call("GET", path)).json() == made
    served.clock.advance(5)
    changed = (await served.call("PATCH", path, {"name": "Other", "members": []})).json()
    assert (changed["name"], changed["description"]) == ("Other", "d") and changed["updated_at"] > made["updated_at"]
    listed = ProjectList.model_validate((await served.call("GET", f"{PROJECTS}?limit=1&offset=1")).json())
    assert ([found.name for found in listed.projects], listed.total, listed.limit, listed.offset) == (["Other"], 2, 1, 1)
    assert (await served.call("DELETE", path)).status_code == 204
    assert (await served.call("GET", path)).status_code == 404
    default = (await served.call("GET", PROJECTS)).json()["projects"][0]
    assert (await served.call("DELETE", f"{PROJECTS}/{default['uuid']}")).status_code == 409


@pytest.mark.requirement("projects.crud", "errors.invalid-field-is-named")
async def test_members_are_refused_in_words_while_there_are_no_people(served: Served) -> None:
    answer = await served.call("POST", PROJECTS, {"name": "P", "members": [{"user_id": "u", "role": "admin"}]})
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == "members"
    assert "at most 0" in answer.json()["message"]
    nameless = await served.call("POST", PROFILES, {"name": "  "})
    assert (nameless.status_code, nameless.json()["error"]["details"]["field"]) == (400, "name")


@pytest.mark.requirement("projects.profiles", "projects.slug", "json.camel-and-snake-case")
async def test_a_profile_is_made_listed_moved_and_removed(served: Served) -> None:
    project = await make(served, PROJECTS, name="Lab")
    made = await make(served, PROFILES, name="My  Profile!", projectUuid=project["uuid"])
    read = ProfileOut.model_validate(made)
    assert (read.slug, read.project_uuid, read.servers, read.is_default) == ("my-profile", project["uuid"], [], False)
    assert (await make(served, PROFILES, name="my profile"))["slug"] == "my-profile-2"
    listed = ProfileList.model_validate((await served.call("GET", f"{PROFILES}?project_uuid={project['uuid']}")).json())
    assert [found.slug for found in listed.profiles] == ["lab", "my-profile"]
    path = f"{PROFILES}/{read.uuid}"
    changed = (await served.call("PATCH", path, {"name": "New", "description": "d"})).json()
    assert (changed["slug"], changed["name"], changed["description"]) == ("my-profile", "New", "d")
    for wrong in ("nope", "00000000-0000-7000-8000-000000000000"):
        for answer in (
            await served.call("GET", f"{PROFILES}?project_uuid={wrong}"),
            await served.call("PATCH", path, {"project_uuid": wrong}),
        ):
            assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "project_uuid")
    assert (await served.call("DELETE", f"{PROFILES}/{project['default_profile_uuid']}")).status_code == 409
    assert (await served.call("DELETE", path)).status_code == 204
    assert (await served.call("GET", path)).status_code == 404


@pytest.mark.requirement("projects.references", "projects.tool-settings")
async def test_a_server_is_put_into_a_profile_and_its_tools_are_spoken_of(served: Served) -> None:
    profile = (await make(served, PROFILES, name="Tools"))["uuid"]
    assert (await served.call("GET", f"/api/servers/{served.demo_id}/tools")).status_code == 200
    path = f"{PROFILES}/{profile}/servers/{served.demo_id}"
    tools = {"echo": {"name": "say", "description": "Says it"}, "add": {"enabled": False}}
    put = await served.call("PUT", path, {"tools": tools})
    assert put.status_code == 200, put.text
    shown = put.json()
    assert (shown["uuid"], shown["slug"], shown["home"], shown["enabled"]) == (served.demo_id, "weather-server", False, True)
    assert shown["tools"] == tools
    assert (await served.call("PUT", path, {"tools": tools})).json() == shown
    for wrong, field in (
        ({"tools": {"echo": {"name": "not a name"}}}, "tools.echo.name"),
        ({"tools": {"echo": {"title": "x"}}}, "tools.echo.title"),
        ({"tools": {"echo": {"name": "x" * 65}}}, "tools.echo.name"),
        ({"tools": {"echo": {"name": "get_weather"}}}, "tools.echo.name"),
        ({"tools": {"": {}}}, "tools..[key]"),
        ({"enabled": "yes"}, "enabled"),
    ):
        answer = await served.call("PUT", path, wrong)
        assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, field)
    listed = ServersInProfile.model_validate((await served.call("GET", f"{PROFILES}/{profile}/servers")).json())
    assert (listed.total, listed.servers[0].tools["add"].enabled) == (1, False)
    other = await server(served, "Another")
    await served.call("PUT", f"{PROFILES}/{profile}/servers/{other['uuid']}", {"enabled": False})
    page = (await served.call("GET", f"{PROFILES}/{profile}/servers?limit=1&offset=1")).json()
    assert ([found["slug"] for found in page["servers"]], page["total"]) == (["weather-server"], 2)
    assert (await served.call("DELETE", path)).status_code == 204
    assert (await served.call("DELETE", path)).status_code == 404
    home = f"{PROFILES}/{other['profile_uuid']}/servers/{other['uuid']}"
    assert (await served.call("DELETE", home)).status_code == 409
    assert (await served.call("PUT", home, {"enabled": False})).json()["home"] is True


@pytest.mark.requirement("projects.homes")
async def test_a_place_with_servers_at_home_is_removed_with_a_word_about_them(served: Served) -> None:
    project = await make(served, PROJECTS, name="Homes")
    profile = await make(served, PROFILES, name="Home", project_uuid=project["uuid"])
    made = await server(served, "Homely", profile_uuid=profile["uuid"])
    for path in (f"{PROFILES}/{profile['uuid']}", f"{PROJECTS}/{project['uuid']}"):
        refused = await served.call("DELETE", path)
        assert refused.status_code == 409
        details = refused.json()["error"]["details"]
        assert details["servers"] == [{"uuid": made["uuid"], "slug": "homely", "name": "Homely"}]
        assert "?servers=move" in details["hint"]
        assert (await served.call("DELETE", path + "?servers=keep")).status_code == 400
    assert (await served.call("DELETE", f"{PROFILES}/{profile['uuid']}?servers=move")).status_code == 204
    moved = (await served.call("GET", f"/api/servers/{made['uuid']}")).json()
    assert moved["profile_uuid"] == project["default_profile_uuid"]
    assert (await served.call("DELETE", f"{PROJECTS}/{project['uuid']}?servers=delete")).status_code == 204
    assert (await served.call("GET", f"/api/servers/{made['uuid']}")).status_code == 404
