"""Bodies of deliveries: the hub's own, and the messages of chat services. Pure: an event's public body in, text out."""

from collections.abc import Callable, Mapping
from typing import Any

from plughub.kit.js_json import dumps
from plughub.webhooks.schemas import Format

MAX_BODY = 20 * 1024
RETRY_COUNT = '"retry_count":0}'
_MAX_KEPT = 200
_MAX_FACTS = 10
_MAX_FACT = 300
_RED, _GREY = 0xC0392B, 0x5D6D7E


def body_of(event: Mapping[str, Any], format_: Format, channel: str | None) -> str:
    """What is sent. The hub's own ends with the retry count, which is all that differs between two attempts."""
    if format_ == "webhook":
        return own_body(event)
    return dumps(_SERVICES[format_](event, channel))


def own_body(event: Mapping[str, Any]) -> str:
    """At most 20 KB, as JavaScript would write it again. What is larger comes thin: without the long members of `data`."""
    body = dumps({**event, "retry_count": 0})
    if len(body) <= MAX_BODY // 4 or len(body.encode()) <= MAX_BODY:
        return body
    data = {name: value for name, value in event["data"].items() if _short(name) and _short(value)}
    body = dumps({**event, "data": {**data, "thin": True}, "retry_count": 0})
    if len(body.encode()) <= MAX_BODY:
        return body
    named = {name: data[name] for name in ("server_uuid", "mcp_id") if name in data}
    return dumps({**event, "data": {**named, "thin": True}, "retry_count": 0})


def with_retry_count(body: str, count: int) -> bytes:
    """The body of a later attempt. A chat service's message has no count."""
    if count and body.endswith(RETRY_COUNT):
        body = f"{body[: -len(RETRY_COUNT)]}{RETRY_COUNT[:-2]}{count}}}"
    return body.encode()


def _short(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= _MAX_KEPT)


def _slack(event: Mapping[str, Any], channel: str | None) -> dict[str, Any]:
    """An incoming webhook of Slack: `text` for notifications, blocks for the message. Slack's own escapes keep `<!channel>` a text."""
    title = _slack_text(_title(event))
    facts = "\n".join(f"*{_slack_text(name)}*: {_slack_text(value)}" for name, value in _facts(event))
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": f"*{title}*" + (f"\n{facts}" if facts else "")}}]
    context = {"type": "context", "elements": [{"type": "mrkdwn", "text": f"Plughub · {event['timestamp']} · {event['id']}"}]}
    message = {"text": title, "blocks": [*blocks, context]}
    return message if channel is None else {"channel": channel, **message}


def _slack_text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _teams(event: Mapping[str, Any], _channel: str | None) -> dict[str, Any]:
    """A workflow's webhook of Microsoft Teams: a message with one adaptive card."""
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            {
                "type": "TextBlock",
                "text": _title(event),
                "weight": "Bolder",
                "wrap": True,
                "color": "Attention" if _bad(event) else "Default",
            },
            {"type": "FactSet", "facts": [{"title": name, "value": value} for name, value in _facts(event)]},
            {"type": "TextBlock", "text": f"Plughub · {event['timestamp']}", "isSubtle": True, "size": "Small"},
        ],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _discord(event: Mapping[str, Any], _channel: str | None) -> dict[str, Any]:
    """A webhook of Discord: one embed; nobody is mentioned, whatever a name holds."""
    embed = {
        "title": _title(event)[:256],
        "color": _RED if _bad(event) else _GREY,
        "timestamp": event["timestamp"],
        "fields": [{"name": name[:256], "value": value, "inline": len(value) <= 40} for name, value in _facts(event)],
    }
    return {"username": "Plughub", "embeds": [embed], "allowed_mentions": {"parse": []}}


_SERVICES: dict[str, Callable[[Mapping[str, Any], str | None], dict[str, Any]]] = {"slack": _slack, "teams": _teams, "discord": _discord}


def _title(event: Mapping[str, Any]) -> str:
    """`server.error: weather`."""
    data = event["data"]
    about = next((data[name] for name in ("name", "tool", "slug", "email", "client_name", "url") if isinstance(data.get(name), str)), None)
    return event["event"] if about is None else f"{event['event']}: {about[:_MAX_FACT]}"


def _bad(event: Mapping[str, Any]) -> bool:
    name, data = event["event"], event["data"]
    return bool(data.get("is_error")) or name.endswith((".error", ".failed", ".flagged", ".quarantined", ".disabled", ".limit_reached"))


def _facts(event: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The short members of `data`, by name; a chat shows no documents."""
    found = []
    for name, value in event["data"].items():
        if value is None or value == "" or isinstance(value, Mapping):
            continue
        text = ", ".join(str(item) for item in value) if isinstance(value, list) else value if isinstance(value, str) else dumps(value)
        found.append((name, text if len(text) <= _MAX_FACT else text[: _MAX_FACT - 1] + "…"))
    return found[:_MAX_FACTS]
