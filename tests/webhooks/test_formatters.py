"""Bodies: the hub's own, within 20 KB, and those of chat services."""

import json
from typing import Any

import pytest

from plughub.webhooks.formatters import MAX_BODY, body_of, own_body, with_retry_count
from plughub.webhooks.schemas import Format


def an_event(name: str = "server.error", **data: Any) -> dict[str, Any]:
    about = {"server_uuid": "u", "mcp_id": "mcp_u", **data}
    return {
        "id": "evt_e_1",
        "event": name,
        "type": name,
        "timestamp": "2026-01-01T00:00:00.000Z",
        "organization_id": "org_1",
        "data": about,
    }


def test_attempts_differ_in_nothing_but_the_retry_count() -> None:
    body = own_body(an_event(name="tool.executed", tool="echo"))
    first, third = json.loads(with_retry_count(body, 0)), json.loads(with_retry_count(body, 2))
    assert (first.pop("retry_count"), third.pop("retry_count")) == (0, 2)
    assert first == third
    assert list(json.loads(body)) == ["id", "event", "type", "timestamp", "organization_id", "data", "retry_count"]


@pytest.mark.requirement("webhooks.body-bounded")
@pytest.mark.parametrize("data", [{"text": "ü" * 30_000}, {"many": ["x" * 100] * 1000}, {f"k{n}": n for n in range(5000)}])
def test_a_large_event_comes_thin_and_says_so(data: dict[str, Any]) -> None:
    body = own_body(an_event(tool="echo", **data))
    assert len(body.encode()) <= MAX_BODY
    thin = json.loads(body)["data"]
    assert (thin["thin"], thin["server_uuid"], thin["mcp_id"]) == (True, "u", "mcp_u")
    assert "thin" not in json.loads(own_body(an_event(text="x" * 20_000)))["data"]


@pytest.mark.requirement("webhooks.integrations")
@pytest.mark.parametrize("service", ["slack", "teams", "discord"])
def test_a_service_gets_a_message_of_its_own_shape_that_names_what_happened(service: Format) -> None:
    event = an_event(slug="weather", error="connection refused", list=["a", "b"], nested={"a": 1}, empty="")
    message = json.loads(body_of(event, service, "#ops"))
    text = json.dumps(message)
    assert "server.error: weather" in text and "connection refused" in text and "a, b" in text and "nested" not in text
    match service:
        case "slack":
            assert (message["channel"], message["text"]) == ("#ops", "server.error: weather")
            assert [block["type"] for block in message["blocks"]] == ["section", "context"]
        case "teams":
            card = message["attachments"][0]
            assert (message["type"], card["contentType"]) == ("message", "application/vnd.microsoft.card.adaptive")
            assert (card["content"]["type"], card["content"]["body"][1]["type"]) == ("AdaptiveCard", "FactSet")
        case _:
            assert (message["embeds"][0]["title"], message["allowed_mentions"]) == ("server.error: weather", {"parse": []})


def test_a_name_cannot_call_a_channel() -> None:
    message = body_of(an_event(name="server.created", slug="<!channel> & co"), "slack", None)
    assert "<!channel>" not in message and "&lt;!channel&gt; &amp; co" in message
    assert "channel" not in json.loads(message)


@pytest.mark.parametrize("service", ["slack", "teams", "discord"])
def test_a_message_keeps_within_what_a_service_takes(service: Format) -> None:
    body = body_of(an_event(**{f"k{n}": "x" * 5000 for n in range(100)}), service, None)
    assert len(body) < 10_000
    assert with_retry_count(body, 3) == body.encode()
