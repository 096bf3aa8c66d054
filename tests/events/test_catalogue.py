"""The catalogue of public events: what is promised of each, and which subscription hears it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from plughub.events import catalogue
from plughub.events.document import example_of, schema_of
from plughub.events.names import KNOWN, is_known, matches
from plughub.events.published import COMING, INTERNAL, PUBLISHED
from tests.events.schemas import check_body

NAMES = {value for name, value in vars(catalogue).items() if name.isupper() and isinstance(value, str)}


@pytest.mark.requirement("events.schemas")
def test_every_name_is_either_public_or_internal() -> None:
    assert {*PUBLISHED, *INTERNAL} == NAMES
    assert not INTERNAL & set(PUBLISHED) and not COMING & set(PUBLISHED)


@pytest.mark.requirement("events.schemas")
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_example_of_an_event_fits_its_schema(name: str) -> None:
    Draft202012Validator.check_schema(schema_of(PUBLISHED[name]))
    check_body(example_of(PUBLISHED[name]))


@pytest.mark.requirement("events.names")
@pytest.mark.parametrize(
    ("subscription", "heard"),
    [
        ("*", {"server.created", "tool.executed", "key.revoked", "member.added", "usage.limit_reached"}),
        ("server.*", {"server.created", "server.error"}),
        ("mcp.*", {"server.created", "server.error"}),
        ("mcp.deleted", {"server.deleted"}),
        ("mcp.health_changed", {"server.connected", "server.disconnected", "server.error"}),
        ("api_key.*", {"key.created", "key.revoked"}),
        ("api_key.revoked", {"key.revoked"}),
        ("team.member_added", {"member.added"}),
        ("team.member_removed", {"member.removed"}),
        ("usage.threshold", {"usage.limit_reached"}),
        ("tool.executed", {"tool.executed"}),
    ],
)
def test_a_subscription_hears_what_it_names(subscription: str, heard: set[str]) -> None:
    assert is_known(subscription)
    assert heard <= {name for name in PUBLISHED if matches([subscription], name)}
    if "*" not in subscription:
        assert heard == {name for name in PUBLISHED if matches([subscription], name)}
    family = {name.partition(".")[0] for name in heard}
    if subscription != "*":
        assert {name.partition(".")[0] for name in PUBLISHED if matches([subscription], name)} == family


@pytest.mark.requirement("events.names")
@pytest.mark.parametrize(
    "word", ["", ".", "server", "server.", "server.creat*", "*.created", "mcp", "request.completed", "SERVER.*", "x.*"]
)
def test_what_names_nothing_is_not_known(word: str) -> None:
    assert not is_known(word)


@pytest.mark.requirement("events.names")
@given(st.lists(st.sampled_from(KNOWN)), st.sampled_from(KNOWN))
def test_whole_names_hear_themselves_alone(subscriptions: list[str], name: str) -> None:
    assert matches(subscriptions, name) == (name in subscriptions)
