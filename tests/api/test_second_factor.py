"""A second factor: switched on, needed, used once, lost, and switched off."""

import httpx2
import pytest
from pyotp import TOTP
from sqlalchemy import select

from plughub.api import auth_shapes as shapes
from plughub.db.tables import backup_code, person
from tests.api.test_auth import AUTH, NEW, account, link, logged_in, post
from tests.serving import PASSWORD, Browser, Served

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("people.second-factor")]


async def switched_on(served: Served, email: str) -> tuple[Browser, TOTP, list[str]]:
    await account(served, email)
    browser = await logged_in(served, email)
    made = shapes.TotpOut.model_validate((await post(served, "/totp", {"password": PASSWORD}, browser)).json())
    codes = TOTP(made.secret)
    assert made.uri.startswith("otpauth://totp/Plughub:") and made.secret in made.uri
    on = await post(served, "/totp/confirm", {"code": now(served, codes)}, browser)
    assert on.status_code == 200, on.text
    served.clock.advance(30)
    return browser, codes, shapes.BackupCodesOut.model_validate(on.json()).backup_codes


def now(served: Served, codes: TOTP, steps: int = 0) -> str:
    return str(codes.generate_otp(int(served.clock.time()) // 30 + steps))


async def log_in(served: Served, email: str, code: str | None, password: str = PASSWORD) -> httpx2.Response:
    return await post(served, "/login", {"email": email, "password": password, **({} if code is None else {"code": code})})


async def test_a_login_needs_a_code_and_a_code_is_good_once(served: Served) -> None:
    email = "once@example.com"
    browser, codes, _ = await switched_on(served, email)
    assert (await served.call("GET", AUTH + "/me", key=browser)).json()["user"]["two_factor"] is True
    missing = await log_in(served, email, None)
    assert (missing.status_code, missing.json()["error"]["details"]["reason"]) == (401, "code_required")
    wrong = await log_in(served, email, None, "wrong horse")
    assert "reason" not in wrong.json()["error"]["details"], "only who knows the password learns that there is a second factor"
    code = now(served, codes)
    assert (await log_in(served, email, f"{code[:3]} {code[3:]}")).status_code == 200
    again = await log_in(served, email, code)
    assert (again.status_code, again.json()["error"]["details"]["reason"]) == (401, "code_wrong")


async def test_a_code_may_be_one_step_early_or_late_and_never_older_than_the_last(served: Served) -> None:
    email = "steps@example.com"
    _, codes, _ = await switched_on(served, email)
    served.clock.advance(300)
    for steps, status in ((-2, 401), (2, 401), (-1, 200), (-1, 401), (1, 200), (0, 401)):
        assert (await log_in(served, email, now(served, codes, steps))).status_code == status, steps


async def test_a_backup_code_is_good_once_and_new_ones_replace_all(served: Served) -> None:
    email = "backup@example.com"
    browser, codes, backup = await switched_on(served, email)
    assert len(set(backup)) == 10 and all(len(code) == 11 for code in backup)
    assert (await log_in(served, email, backup[0].upper())).status_code == 200
    assert (await log_in(served, email, backup[0])).status_code == 401
    renewed = await post(served, "/totp/backup-codes", {"password": PASSWORD, "code": now(served, codes)}, browser)
    fresh = shapes.BackupCodesOut.model_validate(renewed.json()).backup_codes
    assert (await log_in(served, email, backup[1])).status_code == 401
    assert (await log_in(served, email, fresh[1])).status_code == 200


async def test_nothing_of_it_is_readable_in_the_database(served: Served) -> None:
    _, codes, backup = await switched_on(served, "sealed@example.com")
    async with served.database.read() as connection:
        rows = [*(await connection.execute(select(person))), *(await connection.execute(select(backup_code)))]
    assert codes.secret not in repr(rows) and backup[0] not in repr(rows) and backup[0].replace("-", "") not in repr(rows)


async def test_switching_it_on_or_off_ends_every_other_session(served: Served) -> None:
    email = "ends@example.com"
    await account(served, email)
    before = await logged_in(served, email)
    browser = await logged_in(served, email)
    secret = (await post(served, "/totp", {"password": PASSWORD}, browser)).json()["secret"]
    assert (await served.call("GET", AUTH + "/me", key=before)).status_code == 200, "it is not on yet"
    assert (await log_in(served, email, None)).status_code == 200
    wrong = await post(served, "/totp/confirm", {"code": "000000"}, browser)
    assert (wrong.status_code, wrong.json()["error"]["details"]) == (
        400,
        {**wrong.json()["error"]["details"], "field": "code", "value": "***"},
    )
    codes = TOTP(secret)
    assert (await post(served, "/totp/confirm", {"code": now(served, codes)}, browser)).status_code == 200
    assert (await served.call("GET", AUTH + "/me", key=before)).status_code == 401
    assert (await post(served, "/totp/confirm", {"code": now(served, codes, 1)}, browser)).status_code == 409
    assert (await post(served, "/totp", {"password": PASSWORD}, browser)).status_code == 409
    served.clock.advance(60)
    for password, code, status in (
        ("wrong horse", now(served, codes), 401),
        (PASSWORD, "000000", 401),
        (PASSWORD, now(served, codes), 204),
    ):
        assert (await post(served, "/totp/disable", {"password": password, "code": code}, browser)).status_code == status
    assert (await log_in(served, email, None)).status_code == 200
    assert (await post(served, "/totp/disable", {"password": PASSWORD, "code": "1"}, browser)).status_code == 409


async def test_a_new_password_does_not_pass_the_second_factor(served: Served) -> None:
    email = "reset2@example.com"
    _, codes, _ = await switched_on(served, email)
    await post(served, "/password/forgot", {"email": email})
    token = await link(served, "reset", email)
    assert (await post(served, "/password/reset", {"token": token, "password": NEW})).status_code == 200
    assert (await log_in(served, email, None, NEW)).json()["error"]["details"]["reason"] == "code_required"
    assert (await log_in(served, email, now(served, codes), NEW)).status_code == 200


@pytest.mark.requirement("people.throttled")
async def test_codes_cannot_be_tried_out_by_who_knows_the_password(served: Served) -> None:
    email = "guess@example.com"
    await switched_on(served, email)
    statuses = [(await log_in(served, email, None if number % 2 else "000000")).status_code for number in range(12)]
    assert 429 in statuses, "a login without a code does not forgive the wrong ones"
