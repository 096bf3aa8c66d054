"""Passwords and attempts at them, on both databases."""

import asyncio

import pytest

from plughub.db.engine import Database
from plughub.identity.attempts import FREE_FAILURES, MAX_PAUSE_S, Attempts, prune_attempts
from plughub.identity.passwords import Passwords, check_new_password
from plughub.identity.people import normal_email
from plughub.kit.errors import Invalid, RateLimited, Unavailable
from tests.conftest import FakeClock

pytestmark = pytest.mark.anyio
ATTEMPTS = Attempts(5, b"p" * 32)


async def take(database: Database, address: str = "192.0.2.1", account: str | None = None, attempts: Attempts = ATTEMPTS) -> int:
    async with database.unit_of_work() as uow:
        return (await attempts.take(uow, address, account)).left


async def test_a_password_is_known_again_and_no_other_is() -> None:
    passwords = Passwords({1: b"a" * 32})
    stored = await passwords.hash("correct horse battery")
    assert stored.startswith("1:$argon2id$v=19$m=19456,t=2,p=1$") and not passwords.outdated(stored)
    assert await passwords.verify("correct horse battery", stored)
    assert not await passwords.verify("correct horse batterY", stored)
    assert not await passwords.verify("correct horse battery", None)
    long = "x" * 255
    assert not await passwords.verify(long + "b", await passwords.hash(long + "a")), "nothing is cut off"


async def test_the_newest_pepper_is_used_and_the_older_ones_are_known() -> None:
    older = await Passwords({1: b"a" * 32}).hash("correct horse")
    both = Passwords({1: b"a" * 32, 2: b"b" * 32})
    assert await both.verify("correct horse", older) and both.outdated(older)
    assert not both.outdated(await both.hash("correct horse"))
    assert not await Passwords({2: b"b" * 32}).verify("correct horse", older), "a pepper that is lost"
    weak = "1:$argon2id$v=19$m=1024,t=1,p=1$c2FsdHNhbHRzYWx0$AAAA"
    assert both.outdated(weak)


async def test_too_many_at_once_are_refused_at_once() -> None:
    passwords = Passwords({1: b"a" * 32})
    results = await asyncio.gather(*(passwords.verify("x", None) for _ in range(22)), return_exceptions=True)
    assert sorted(str(type(result).__name__) for result in results) == sorted(["Unavailable"] * 2 + ["bool"] * 20)
    assert isinstance(next(r for r in results if isinstance(r, Exception)), Unavailable)


@pytest.mark.parametrize(
    "bad", ["short", "x" * 257, "aaaaaaaaaa", "ababababab", "ada@example.com", "Ada Lovelace", "Password1", "iloveyou", "qwertyuiop"]
)
def test_a_password_that_is_no_good(bad: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_new_password(bad, email="ada@example.com", name="Ada Lovelace")
    assert caught.value.details["value"] == "***"


def test_other_passwords_are_as_their_owners_like_them() -> None:
    for good in ("correct horse", "пароль-пароль", "        1 2", "x y z" * 50):
        check_new_password(good, email="ada@example.com", name="Ada")


def test_addresses_are_compared_in_lower_case_and_nothing_odd_is_one() -> None:
    assert normal_email(" Ada@Example.COM ") == "ada@example.com"
    for bad in (
        "",
        "ada",
        "ada@",
        "@x",
        "a b@c.de",
        "a@b@c",
        "a@b\r\nBcc: c@d.e",
        "<a@b.c>",
        "a@b.c," + "d@e.f",
        "x" * 65 + "@b.c",
        "a@" + "b" * 254,
    ):
        with pytest.raises(Invalid):
            normal_email(bad)


@pytest.mark.requirement("people.throttled")
async def test_an_address_has_five_attempts_and_gets_one_back_every_three_minutes(database: Database, clock: FakeClock) -> None:
    assert [await take(database) for _ in range(5)] == [4, 3, 2, 1, 0]
    with pytest.raises(RateLimited) as caught:
        await take(database)
    assert caught.value.details == {"policy": "address", "limit": 5, "retry_after": 180}
    assert await take(database, "192.0.2.2") == 4
    clock.advance(caught.value.details["retry_after"])
    assert await take(database) == 0
    with pytest.raises(RateLimited):
        await take(database)
    clock.advance(900)
    assert await take(database) == 4


@pytest.mark.requirement("people.throttled")
async def test_all_addresses_of_one_ipv6_network_are_one(database: Database) -> None:
    for last in range(5):
        await take(database, f"2001:db8:1:1::{last}")
    with pytest.raises(RateLimited):
        await take(database, "2001:db8:1:1:ffff::9")
    assert await take(database, "2001:db8:1:2::1") == 4


@pytest.mark.requirement("people.throttled")
async def test_an_account_is_asked_to_wait_longer_and_longer_but_never_long(database: Database, clock: FakeClock) -> None:
    wide = Attempts(1000, b"p" * 32)
    waits = []
    for number in range(FREE_FAILURES + 12):
        try:
            await take(database, f"192.0.2.{number}", "ada@example.com", wide)
        except RateLimited as refused:
            assert refused.details["policy"] == "account"
            waits.append(refused.details["retry_after"])
            clock.advance(refused.details["retry_after"])
            await take(database, f"192.0.2.{number}", "ada@example.com", wide)
    assert waits[:5] == [1, 2, 4, 8, 16] and max(waits) == MAX_PAUSE_S
    assert await take(database, "192.0.2.1", "other@example.com", wide) >= 0
    clock.advance(MAX_PAUSE_S)
    async with database.unit_of_work() as uow:
        await wide.forgive(uow, "192.0.2.1", "ada@example.com")
    for _ in range(FREE_FAILURES):
        await take(database, "192.0.2.1", "ada@example.com", wide)


@pytest.mark.requirement("people.throttled")
async def test_attempts_at_once_do_not_slip_through_and_a_good_one_is_given_back(database: Database) -> None:
    results = await asyncio.gather(*(take(database) for _ in range(8)), return_exceptions=True)
    assert sorted(result for result in results if isinstance(result, int)) == [0, 1, 2, 3, 4]
    assert sum(isinstance(result, RateLimited) for result in results) == 3
    async with database.unit_of_work() as uow:
        await ATTEMPTS.forgive(uow, "192.0.2.1", "ada@example.com")
    assert await take(database) == 0


@pytest.mark.requirement("people.throttled")
async def test_what_counts_no_more_is_removed(database: Database, clock: FakeClock) -> None:
    await take(database, account="ada@example.com")
    clock.advance(86_401)
    async with database.unit_of_work() as uow:
        await prune_attempts(uow)
        assert not (await uow.connection.exec_driver_sql("SELECT * FROM attempt")).all()
