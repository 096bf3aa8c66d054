"""Notifications over REST, on both databases: from a server that falls to somebody who has read of it."""

import shutil
from pathlib import Path

import anyio
import pytest

from plughub.api.notification_shapes import NotificationList, NotificationOut, NotificationSent
from plughub.kit.ids import new_id, public_id
from tests.api.test_auth import deliver
from tests.fakes.mail_server import MailServer
from tests.serving import Json, Served, serving

pytestmark = pytest.mark.anyio
PATH = "/api/notifications"


async def listed(served: Served, query: str = "", **given: object) -> Json:
    answer = await served.call("GET", f"{PATH}{query}", **given)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    NotificationList.model_validate(answer.json())
    found: Json = answer.json()
    return found


async def send(served: Served, message: str, **more: object) -> Json:
    key = more.pop("key", None)
    answer = await served.call("POST", PATH, {"message": message, **more}, key=key)  # type: ignore[arg-type]
    assert answer.status_code == 201, answer.text
    NotificationSent.model_validate(answer.json())
    found: Json = answer.json()
    return found


async def a_fall(served: Served, key: str) -> Json:
    """A server whose command does not exist, and the notification of it."""
    body = {"name": "Down", "type": "STDIO", "config": {"command": "/no/such/command"}}
    made = (await served.call("POST", "/api/servers", body, key=key)).json()
    await served.call("GET", f"/api/servers/{made['uuid']}/tools", key=key)
    with anyio.fail_after(10):
        while not (found := (await listed(served, "?type=server_error", key=key))["notifications"]):
            pass
    assert found[0]["server_uuid"] == made["uuid"]
    first: Json = found[0]
    return first


@pytest.mark.requirement("notifications.over-rest", "notifications.fed-by-the-log")
async def test_a_server_that_cannot_start_is_told_of_and_the_notification_read_and_removed(served: Served) -> None:
    key = await served.key_of(await served.organization("Falls", stdio_allowed=True))
    told = await a_fall(served, key)
    assert (told["title"], told["severity"], told["read"], told["times"]) == ("Server 'down' has failed", "WARNING", False, 1)
    assert told["message"] == "command not found: /no/such/command" and told["link"] == f"/api/servers/{told['server_uuid']}/health"
    assert told["metadata"] == {"event": "server.error", "server_uuid": told["server_uuid"], "slug": "down", "error": told["message"]}
    one = await served.call("GET", f"{PATH}/{told['id']}", key=key)
    assert NotificationOut.model_validate(one.json()) and one.json() == told
    for method in ("PATCH", "POST"):
        read = (await served.call(method, f"{PATH}/{told['id']}/read", key=key)).json()
        assert read["success"] and read["notification"]["read"] and read["notification"]["read_at"]
    assert (await listed(served, "?unread=true", key=key))["total"] == 0
    gone = await served.call("DELETE", f"{PATH}/{told['id']}", key=key)
    assert (gone.status_code, gone.json()["success"]) == (200, True)
    for method, path in (("GET", ""), ("PATCH", "/read"), ("DELETE", "")):
        missing = await served.call(method, f"{PATH}/{told['id']}{path}", key=key)
        assert (missing.status_code, missing.json()["message"]) == (404, "Notification not found")


@pytest.mark.requirement("notifications.over-rest")
async def test_lists_have_filters_and_count_what_is_unread(served: Served) -> None:
    key = await served.key_of(await served.organization("Lists"))
    sent = [await send(served, f"m{number}", key=key, severity="ALERT" if number == 1 else "INFO") for number in range(3)]
    served.clock.advance(1)
    sent.append(await send(served, "newest", key=key, title="T", metadata={"a": [1]}, link="/api/servers"))
    found = await listed(served, "?limit=1", key=key)
    assert (found["total"], found["unread_count"], found["limit"], found["offset"]) == (4, 4, 1, 0)
    assert found["notifications"] == [{name: value for name, value in sent[-1].items() if name != "email_sent"}]
    assert [each["message"] for each in (await listed(served, "?severity=ALERT", key=key))["notifications"]] == ["m1"]
    await served.call("POST", f"{PATH}/{sent[0]['id']}/read", key=key)
    for query, total in (("?unread=true", 3), ("?unread=false", 1), ("?type=custom&offset=3", 4), ("?type=server.error", 0)):
        found = await listed(served, query, key=key)
        assert (found["total"], found["unread_count"]) == (total, 3), query
    assert (await served.call("POST", f"{PATH}/read-all", key=key)).json() == {"success": True, "updated": 3}
    assert (await served.call("POST", f"{PATH}/read-all", key=key)).json() == {"success": True, "updated": 0}
    assert (await listed(served, key=key))["unread_count"] == 0


@pytest.mark.requirement("notifications.who-sees-what")
async def test_who_sees_what(served: Served) -> None:
    organization = await served.organization("Sees", stdio_allowed=True)
    key = await served.key_of(organization)
    told = await a_fall(served, key)
    ada, bob = await served.browser(organization), await served.browser(organization, "viewer")
    everybody = await send(served, "for all", key=key)
    personal = await send(served, "for Ada", key=key, user_id=public_id("user", ada.user_id))
    granted = await served.key_of(organization, servers=[told["server_uuid"]])
    narrow = await served.key_of(organization, servers=[])
    own = await send(served, "from the narrow one", key=narrow)
    ids = {"told": told["id"], "everybody": everybody["id"], "personal": personal["id"], "own": own["id"]}
    for who, seen in (
        (key, {"told", "everybody", "own"}),
        (ada, {"told", "everybody", "own", "personal"}),
        (bob, {"told", "everybody", "own"}),
        (granted, {"told"}),
        (narrow, {"own"}),
        (await served.key_of(organization, "test"), set()),
        (await served.key_of(await served.organization("Elsewhere")), set()),
    ):
        found = await listed(served, key=who)
        assert {each["id"] for each in found["notifications"]} == {ids[name] for name in seen}
        assert found["unread_count"] == found["total"] == len(seen)
        for name, id_ in ids.items():
            assert (await served.call("GET", f"{PATH}/{id_}", key=who)).status_code == (200 if name in seen else 404)
    assert (await served.call("POST", f"{PATH}/read-all", key=granted)).json()["updated"] == 1
    assert (await listed(served, key=ada))["unread_count"] == 3, "what it did not see is unread"
    stranger = await served.browser(await served.organization("Foreign"))
    for unknown in (public_id("user", stranger.user_id), public_id("user", new_id()), "user_nope"):
        refused = await served.call("POST", PATH, {"message": "m", "user_id": unknown}, key=key)
        assert (refused.status_code, refused.json()["error"]["details"]["field"]) == (400, "user_id")


@pytest.mark.requirement("notifications.mail")
async def test_what_is_severe_comes_by_mail_to_whoever_has_not_said_no(sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "plughub.db")
    async with MailServer() as mails:
        smtp = {"smtp_url": f"smtp+plain://127.0.0.1:{mails.port}", "mail_from": "hub@example.com"}
        async with serving(f"sqlite:///{tmp_path}/plughub.db", tmp_path, **smtp) as served:
            organization = await served.organization("Mails")
            key = await served.key_of(organization)
            await served.browser(organization, "owner", "ada@example.com")
            quiet = await served.browser(organization, "owner", "bob@example.com")
            assert (await served.call("PATCH", f"{PATH}/preferences", {"email": False}, key=quiet)).json() == {"email": False}
            assert (await served.call("GET", f"{PATH}/preferences", key=quiet)).json() == {"email": False}
            leaked = (await served.call("POST", "/api/auth/keys", {"name": "ci"}, key=key)).json()
            await served.call("POST", "/api/auth/keys/leaked", {"token": leaked["key"]}, key="")
            with anyio.fail_after(10):
                while not (await listed(served, "?type=key_revoked", key=key))["total"]:
                    pass
            await deliver(served)
            [mail] = mails.mails
            assert (mail["To"], mail["Subject"]) == ("ada@example.com", "A notification of Plughub")
            assert mail.get_content().startswith("Key 'ci' was revoked\r\n") and leaked["key"] not in mail.get_content()
            [told] = (await listed(served, "?type=key_revoked", key=key))["notifications"]
            assert told["severity"] == "ALERT" and told["link"] == f"/api/auth/keys/{leaked['id']}"
            assert (await send(served, "all of you", key=key, send_email=True))["email_sent"]
            assert not (await send(served, "Bob", key=key, send_email=True, user_id=public_id("user", quiet.user_id)))["email_sent"]
