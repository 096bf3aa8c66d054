"""The pages around a login, as a browser without JavaScript uses them: look at the form, fill it in, send it, follow."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import pytest

from plughub.dashboard.account_pages import routes
from plughub.dashboard.forms import local_path
from plughub.door.routes import Route
from plughub.identity.service import Organization
from plughub.kit.ids import public_id
from tests.api.test_auth import link
from tests.serving import BASE, PASSWORD, Served, serving
from tests.walks.rows import ROWS

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("people.pages")]
PAGES = ("/login", "/register", "/forgot-password", "/reset-password", "/verify", "/setup")


class Form(HTMLParser):
    """The first form of a page, and whatever its policy forbids."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action, self.fields, self.forbidden = "", dict[str, str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and not self.action:
            self.action = given["action"]
            assert given["method"] == "post"
        if tag == "input":
            self.fields[given["name"]] = given.get("value", "")
        if tag in ("script", "style") or any(name == "style" or name.startswith("on") for name in given):
            self.forbidden.append(tag)


class Visitor:
    """A browser: keeps its cookie, says where its forms are from."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.cookie = ""

    async def see(self, path: str) -> httpx2.Response:
        answer = await self.served.call("GET", path, key="", headers=self._cookies())
        return self._kept(answer)

    async def send(self, path: str, **filled: str) -> httpx2.Response:
        """Open the page, fill in its form and send it."""
        page = await self.see(path)
        assert page.status_code == 200, page.text
        form = Form(page.text)
        headers = {**self._cookies(), "Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
        answer = await self.served.call("POST", form.action, urlencode({**form.fields, **filled}).encode(), key="", headers=headers)
        return self._kept(answer)

    def _cookies(self) -> dict[str, str]:
        return {"Cookie": f"plughub={self.cookie}"} if self.cookie else {}

    def _kept(self, answer: httpx2.Response) -> httpx2.Response:
        if found := re.match("plughub=([^;]*);", answer.headers.get("set-cookie", "")):
            self.cookie = found[1]
        return answer


async def test_somebody_opens_an_account_leaves_and_comes_back(served: Served) -> None:
    ada = Visitor(served)
    refused = await ada.send("/register", name="Ada <b>", email="pages@example.com", password="short")
    assert refused.status_code == 400 and "at least 8 characters" in refused.text
    assert 'value="Ada &lt;b&gt;"' in refused.text and "short" not in refused.text, "what was typed is kept, but for the password"
    done = await ada.send("/register", name="Ada <b>", email="pages@example.com", password=PASSWORD)
    assert (done.status_code, done.headers["location"]) == (303, "/account")
    page = await ada.see("/account")
    assert page.status_code == 200 and "Ada &lt;b&gt;" in page.text and "<b>" not in page.text
    out = await ada.send("/account")
    assert (out.status_code, out.headers["location"], ada.cookie) == (303, "/login", "")
    assert (await ada.see("/account")).headers["location"] == "/login"
    wrong = await ada.send("/login", email="pages@example.com", password="wrong horse")
    assert wrong.status_code == 401 and "Wrong e-mail address or password" in wrong.text and 'role="alert"' in wrong.text
    back = await ada.send("/login?next=/api/auth/me", email="pages@example.com", password=PASSWORD)
    assert (back.status_code, back.headers["location"]) == (303, "/api/auth/me")
    assert (await ada.see("/api/auth/me")).json()["user"]["email"] == "pages@example.com"


async def test_a_password_is_forgotten_and_an_address_confirmed_on_pages(served: Served) -> None:
    visitor = Visitor(served)
    await visitor.send("/register", name="Ada", email="lost@example.com", password=PASSWORD)
    verify = await link(served, "verify", "lost@example.com")
    assert (await visitor.see(f"/verify?token={verify}")).status_code == 200, "looking at a link uses nothing up"
    assert "lost@example.com is confirmed" in (await visitor.send(f"/verify?token={verify}")).text
    texts = {(await visitor.send("/forgot-password", email=email)).text for email in ("lost@example.com", "nobody@example.com")}
    assert len(texts) == 1
    token = await link(served, "reset", "lost@example.com")
    assert "Password set" in (await visitor.send(f"/reset-password?token={token}", password="another good one")).text
    gone = await visitor.send(f"/reset-password?token={token}", password="another good one")
    assert gone.status_code == 404 and "not valid" in gone.text
    assert (await visitor.send("/login", email="lost@example.com", password="another good one")).status_code == 303


async def invited(served: Served, team: Organization, email: str) -> str:
    answer = await served.call(
        "POST", f"/api/organizations/{public_id('org', team.id)}/invitations", {"email": email}, key=await served.key_of(team)
    )
    return str(answer.json()["invite_url"].removeprefix(BASE))


@pytest.mark.requirement("people.members-and-roles")
async def test_an_invitation_leads_to_an_account_or_to_a_button(served: Served) -> None:
    team = await served.organization("Pages & Co")
    visitor = Visitor(served)
    path = await invited(served, team, "newcomer@example.com")
    page = await visitor.see(path)
    assert "Pages &amp; Co" in page.text and "newcomer@example.com" in page.text
    register = re.search(r'href="(/register\?[^"]*)"', page.text)
    assert register is not None
    done = await visitor.send(register[1].replace("&amp;", "&"), name="New", password=PASSWORD)
    assert done.status_code == 303
    assert (await visitor.see("/api/auth/me")).json()["organization"]["name"] == "Pages & Co"
    assert (await visitor.see(path)).status_code == 404
    second = await invited(served, await served.organization("Second Team"), "newcomer@example.com")
    stranger = Visitor(served)
    known = await stranger.see(second)
    login = re.search(r'href="(/login\?next=[^"]*)"', known.text)
    assert login is not None
    entered = await stranger.send(login[1], email="newcomer@example.com", password=PASSWORD)
    assert entered.headers["location"] == second
    assert (await stranger.send(second)).headers["location"] == "/account"
    assert (await stranger.see("/api/auth/me")).json()["organization"]["name"] == "Second Team"
    nobody = await Visitor(served).see("/invitation?token=nonsense")
    assert nobody.status_code == 404 and nobody.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.requirement("people.first-run-page")
async def test_the_set_up_code_makes_the_operators_account_once(served: Served) -> None:
    code = served.app.first.setup_code if served.app.first else None
    assert code is not None and len(code.replace("-", "")) == 20
    visitor = Visitor(served)
    given = {"name": "Op", "email": "operator@example.com", "password": PASSWORD}
    assert (await visitor.send("/setup", setup_code="abcde-fghjk-mnpqr-stvwx", **given)).status_code == 404
    done = await visitor.send("/setup", setup_code=code.upper().replace("-", " "), **given)
    assert (done.status_code, done.headers["location"]) == (303, "/account")
    me = (await visitor.see("/api/auth/me")).json()
    assert (me["organization"]["name"], me["organization"]["role"]) == ("Operator", "owner")
    assert (await visitor.see("/api/admin/links")).status_code == 200
    other = Visitor(served)
    assert (await other.send("/setup", setup_code=code, **{**given, "email": "second@example.com"})).status_code == 404


@pytest.mark.requirement("people.first-run-page")
async def test_the_operators_account_can_come_from_the_settings(sqlite_template: Path, tmp_path: Path, anyio_backend: str) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "hub.db")
    given = {"operator_email": "Op@Example.com", "operator_password": PASSWORD}
    async with serving(f"sqlite:///{tmp_path / 'hub.db'}", tmp_path, **given) as hub:
        assert hub.app.first is not None and hub.app.first.setup_code is None
        secrets, visitor = hub.secrets, Visitor(hub)
        assert (await visitor.send("/login", email="op@example.com", password=PASSWORD)).status_code == 303
        assert (await visitor.see("/api/auth/me")).json()["organization"]["role"] == "owner"
    other = {**given, "operator_password": "another good one"}
    async with serving(f"sqlite:///{tmp_path / 'hub.db'}", tmp_path, secrets=secrets, **other) as hub:
        assert (await Visitor(hub).send("/login", email="op@example.com", password=PASSWORD)).status_code == 303, "made once, not changed"


async def test_pages_are_under_a_strict_policy_and_need_no_script(served: Served) -> None:
    owner = Visitor(served)
    owner.cookie = (await served.browser(await served.operator())).token
    for path in (*PAGES, "/account"):
        answer = await owner.see(path)
        assert answer.status_code == 200 and Form(answer.text).forbidden == [], path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == ("no-store", "same-origin")
        assert "access-control-allow-origin" not in answer.headers
    style = await owner.see("/assets/plughub.css")
    assert style.headers["content-type"] == "text/css; charset=utf-8" and "url(" not in style.text and "@import" not in style.text


@pytest.mark.requirement("people.same-origin")
async def test_a_form_of_another_site_is_refused(served: Served) -> None:
    body = urlencode({"email": "x@example.com", "password": PASSWORD}).encode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for path in (*PAGES, "/invitation", "/logout"):
        for headers in ({}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            answer = await served.call("POST", path, body, key="", headers={**form, **headers})
            assert answer.status_code == 403 and answer.headers["content-type"] == "text/html; charset=utf-8", path
    own = {"Origin": BASE}
    assert (await served.call("POST", "/login", b"{}", key="", headers={**own, "Content-Type": "application/json"})).status_code == 415
    for bad in (b"email=%FF", b"&".join(b"a%d=1" % n for n in range(200)), b"email=" + b"x" * 2000, b"email=a%00b"):
        assert (await served.call("POST", "/login", bad, key="", headers={**form, **own})).status_code == 400
    assert (await served.call("POST", "/login", b"x" * 70_000, key="", headers={**form, **own})).status_code == 413


def test_a_login_leads_to_no_other_site() -> None:
    for good in ("/", "/account", "/invitation?token=a-b_c"):
        assert local_path(good) == good
    for bad in (
        "",
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil",
        "javascript:x",
        "/a\r\nSet-Cookie: x",
        "/\u2028",
        "/\t/evil",
    ):
        assert local_path(bad) is None, bad


async def test_a_page_beside_the_api_belongs_to_no_row_of_it(lite: Served) -> None:
    pages: list[Route] = routes(lite.app.hub)
    assert not {page.path for page in pages} & {row.path for row in ROWS}
    assert {page.door for page in pages} == {"page"} and all(page.cost == 0 for page in pages)
    missing = await lite.call("DELETE", "/login", key="")
    assert missing.status_code == 405 and missing.json()["error"]["code"] == "METHOD_NOT_ALLOWED"
