"""Whose counters a request counts against."""

from dataclasses import replace

import pytest

from plughub.cluster.limits import InProcessLimits
from plughub.gateway.admission import space_of
from plughub.kit.caller import SCOPES, TIERS, Caller, Tier, narrowed, tier_with
from plughub.kit.errors import RateLimited
from plughub.kit.ids import new_id
from tests.conftest import FakeClock

ORGANIZATION = new_id()
CALLER = Caller(ORGANIZATION, "s", "live", "k", "public", SCOPES, None, TIERS["free"], operator=False, stdio_allowed=False)


def counted(caller: Caller) -> tuple[str, Tier]:
    return caller.counters, caller.allowance


def session_of(person: str) -> Caller:
    return replace(CALLER, credential="session", user_id=person)


def test_an_organisation_counts_by_environment_and_its_counters_name_it() -> None:
    test = replace(CALLER, environment="test")
    assert counted(CALLER) == (ORGANIZATION, TIERS["free"])
    assert counted(test)[0] != counted(CALLER)[0]
    assert space_of(counted(CALLER)[0]) == (ORGANIZATION, "live")
    assert space_of(counted(test)[0]) == (ORGANIZATION, "test")
    assert space_of("key:k") is None


@pytest.mark.requirement("limits.sessions")
def test_browser_sessions_count_by_person_whatever_the_organisation_has_used(clock: FakeClock) -> None:
    limits = InProcessLimits(clock, 100)
    for _ in range(10):
        limits.admit(*counted(CALLER)).release()
    with pytest.raises(RateLimited):
        limits.admit(*counted(CALLER))
    ann, bob = counted(session_of("ann")), counted(session_of("bob"))
    assert space_of(ann[0]) is None, "nobody is told that a person has used up their hour"
    for _ in range(ann[1].burst):
        limits.admit(*ann).release()
    with pytest.raises(RateLimited) as refused:
        limits.admit(*ann)
    assert refused.value.details["limit"] == ann[1].burst
    limits.admit(*bob).release()


@pytest.mark.requirement("limits.enterprise-numbers", "keys.rate-overrides")
def test_equal_numbers_are_one_tier_and_a_key_never_has_more_than_its_organisation() -> None:
    own = tier_with("enterprise", 5000, None, 7)
    assert own is tier_with("enterprise", 5000, None, 7)
    assert (own.hourly, own.burst, own.concurrency) == (5000, 1_000_000, 7)
    assert tier_with("free", None, None, None) == TIERS["free"]
    key = narrowed(own, 6000, 10, None)
    assert (key.name, key.hourly, key.burst, key.concurrency) == ("key", 5000, 10, 7)
    assert key is narrowed(own, 6000, 10, None)
