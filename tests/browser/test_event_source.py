"""The documents' EventSource samples in a real browser, as they are printed: the host and the key alone are exchanged."""

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Site
from tests.flows.running_hub import RunningHub
from tests.flows.waiting import until

# "Streaming Responses" of the guide.
STREAMING = """
// SSE connection for live updates
const eventSource = new EventSource (
'https://plugged.in/api/servers/events?token=YOUR_API_KEY'
);
eventSource . onmessage = ( event ) => {
const data = JSON . parse ( event . data );
console . log ( 'Server event:' , data );
};
eventSource . addEventListener ( 'tool.executed' , ( event ) => {
const result = JSON . parse ( event . data );
console . log ( 'Tool result:' , result );
});
"""
# Of its "Monitoring Dashboard"; what the class leaves to its reader is below.
MONITOR = """
class ServerMonitor {
constructor ( apiKey ) {
this . apiKey = apiKey ;
this . servers = new Map ();
}
subscribeToUpdates () {
const eventSource = new EventSource (
`https://plugged.in/api/events?token= ${ this . apiKey } `
);
eventSource . onmessage = ( event ) => {
const update = JSON . parse ( event . data );
this . handleUpdate ( update );
};
}
}
"""
READER = """
ServerMonitor.prototype.handleUpdate = (update) => console.log('Update:', update);
new ServerMonitor('YOUR_API_KEY').subscribeToUpdates();
"""
Said = list[tuple[str, Any]]


def public_key(hub: RunningHub) -> str:
    made = hub.api("POST", "/api/auth/keys", {"name": "page", "kind": "public", "scopes": ["read:events"]})
    assert made.status_code == 201, made.text
    key: str = made.json()["key"]
    return key


def run(hub: RunningHub, page: Page, site: Site, script: str) -> Said:
    """Run the script in a page of another origin, and wait until its stream is open; what it says on the console."""
    said: Said = []
    page.on("console", lambda message: said.append((message.args[0].json_value(), message.args[1].json_value())))
    page.goto(site.url)
    with page.expect_response(lambda response: "/events?" in response.url) as answer:
        page.add_script_tag(content=script.replace("https://plugged.in", hub.url).replace("YOUR_API_KEY", public_key(hub)))
    assert answer.value.status == 200
    return said


def call(hub: RunningHub) -> str:
    demo = hub.api("GET", "/api/servers").json()["servers"][0]["uuid"]
    called = hub.api("POST", f"/api/servers/{demo}/tools/echo/execute", {"parameters": {"text": "hello"}})
    assert called.status_code == 200, called.text
    uuid: str = demo
    return uuid


def heard(page: Page, said: Said, word: str, event: str) -> Any:
    """The first thing of that kind that the page has said, once it has."""

    def find() -> Any:
        page.wait_for_timeout(20)  # the browser tells what was said while somebody waits for it
        return next((body for first, body in said if first == word and body["event"] == event), None)

    return until(find, f"{word} {event}", 15)


@pytest.mark.requirement("events.browser", "events.mirror")
def test_handlers_of_both_kinds_hear_of_a_call(hub: RunningHub, page: Page, site: Site) -> None:
    said = run(hub, page, site, STREAMING)
    server = call(hub)
    result = heard(page, said, "Tool result:", "tool.executed")
    assert (result["data"]["tool"], result["data"]["server_uuid"]) == ("echo", server)
    assert heard(page, said, "Server event:", "tool.executed") == result
    assert [first for first, _ in said].count("Tool result:") == 1


@pytest.mark.requirement("events.browser")
def test_the_dashboard_hears_of_changes(hub: RunningHub, page: Page, site: Site) -> None:
    said = run(hub, page, site, MONITOR + READER)
    off = {"name": "Seen", "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/mcp"}, "enabled": False}
    made = hub.api("POST", "/api/servers", off).json()
    update = heard(page, said, "Update:", "server.created")
    assert (update["data"]["server_uuid"], update["data"]["name"]) == (made["uuid"], "Seen")


@pytest.mark.requirement("events.browser", "events.query-token")
def test_a_browser_that_was_cut_off_comes_back_by_itself_and_has_missed_nothing(hub: RunningHub, page: Page, site: Site) -> None:
    key = public_key(hub)
    script = STREAMING.replace("https://plugged.in", hub.url).replace("YOUR_API_KEY", key)
    page.goto(site.url)
    said: Said = []
    page.on("console", lambda message: said.append((message.args[0].json_value(), message.args[1].json_value())))
    with page.expect_response(lambda response: "/events?" in response.url):
        page.add_script_tag(content=script)
    call(hub)
    first = heard(page, said, "Tool result:", "tool.executed")
    id_ = next(found["id"] for found in hub.api("GET", "/api/auth/keys?limit=100").json()["keys"] if found["prefix"] == key[:15])
    with page.expect_response(lambda response: "/events?" in response.url):
        # What the key may is another thing now: its streams end, and open anew.
        assert hub.api("PATCH", f"/api/auth/keys/{id_}", {"scopes": ["read:events", "read:servers"]}).status_code == 200
        call(hub)
    results = until(lambda: page.wait_for_timeout(20) or [body for word, body in said if word == "Tool result:"][1:], "the second call", 15)
    assert len(results) == 1 and results[0]["id"] != first["id"]
    assert key not in hub.output
