"""Which webhook is told of what."""

import pytest

from plughub.events.names import matches
from plughub.kit.errors import Invalid
from plughub.webhooks.matching import delivery_id
from plughub.webhooks.schedule import DAY_S, HOUR_S, MINUTE_S, gives_up, next_attempt
from plughub.webhooks.subscriptions import require_known


@pytest.mark.parametrize(
    ("wanted", "name", "told"),
    [
        ("server.error", "server.error", True),
        ("server.*", "server.error", True),
        ("*", "tool.executed", True),
        ("mcp.*", "server.created", True),
        ("mcp.error", "server.error", True),
        ("api_key.created", "key.created", True),
        ("team.member_added", "member.added", True),
        ("usage.threshold", "usage.limit_reached", True),
        ("server.*", "servers.error", False),
        ("mcp.*", "tool.executed", False),
        ("server.err", "server.error", False),
    ],
)
@pytest.mark.requirement("webhooks.names")
def test_names_wildcards_and_aliases(wanted: str, name: str, told: bool) -> None:
    assert matches([wanted], name) is told


@pytest.mark.requirement("webhooks.names")
def test_an_unknown_name_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(Invalid) as refused:
        require_known(["server.error", "tool.excuted", "nothing-like-it"])
    assert refused.value.details["field"] == "events.1"
    assert refused.value.text == "Unknown event 'tool.excuted'. Did you mean 'tool.executed'?"
    assert [error["field"] for error in refused.value.errors] == ["events.1", "events.2"]
    assert require_known(["*", "server.*", "mcp.deleted", "document.created", "*"]) == ["*", "server.*", "mcp.deleted", "document.created"]


@pytest.mark.parametrize("hidden", ["session.ended", "request.completed", "organization.updated", "session.*"])
def test_what_is_not_for_the_public_cannot_be_subscribed_to(hidden: str) -> None:
    with pytest.raises(Invalid):
        require_known([hidden])


def test_an_id_follows_from_webhook_and_event_and_has_no_dot() -> None:
    first = delivery_id("w", "e", 1)
    assert first == delivery_id("w", "e", 1)
    assert len({first, delivery_id("w", "e", 2), delivery_id("v", "e", 1), delivery_id("w", "f", 1)}) == 4
    assert "." not in first


@pytest.mark.requirement("webhooks.schedule")
def test_the_schedule_is_that_of_the_contract_within_ten_percent() -> None:
    planned = [MINUTE_S, 5 * MINUTE_S, 30 * MINUTE_S, 2 * HOUR_S, 12 * HOUR_S]
    for tries, wait_s in enumerate(planned, 1):
        assert next_attempt(0, tries, None, lambda low, _: low) == pytest.approx(0.9 * wait_s)
        assert next_attempt(0, tries, None, lambda _, high: high) == pytest.approx(1.1 * wait_s)
    assert next_attempt(0, 6, None, lambda low, _: low) is None


def test_retry_after_makes_it_later_never_sooner_and_by_a_day_at_most() -> None:
    assert next_attempt(0, 1, 3, lambda _low, _high: 1) == MINUTE_S
    assert next_attempt(0, 1, 600, lambda _low, _high: 1) == 600
    assert next_attempt(0, 1, 1e9, lambda _low, _high: 1) == DAY_S


def test_an_endpoint_is_given_up_after_five_days_and_not_a_second_sooner() -> None:
    assert not gives_up(0.0, 5 * DAY_S - 1)
    assert gives_up(0.0, 5 * DAY_S)
    assert not gives_up(None, 9e9)
