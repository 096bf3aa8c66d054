"""Health, readiness, metrics, limits, metadata."""

from pathlib import Path

import anyio
import httpx2
import pytest
from sqlalchemy import text

from plughub.app import create_app
from plughub.data_dir import Secrets
from plughub.keys.service import Peppers
from plughub.kit.caller import SCOPES
from plughub.kit.crypto import Sealer
from plughub.settings import Settings
from tests.serving import BASE, Served

pytestmark = pytest.mark.anyio


@pytest.mark.requirement("http.health-and-ready")
async def test_health_and_ready_need_no_key(served: Served) -> None:
    health = await served.call("GET", "/health", key="")
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    ready = await served.call("GET", "/ready", key="")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


@pytest.mark.requirement("http.health-and-ready")
async def test_ready_is_a_503_without_a_database_and_health_is_not(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url="postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=2")
    app = create_app(settings, Secrets(Peppers({1: bytes(32)}), Sealer({1: bytes(32)})))
    transport = httpx2.ASGITransport(app=app.asgi)  # type: ignore[arg-type]
    async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "UNAVAILABLE")
        assert "nobody" not in ready.text
        assert (await client.get("/health")).status_code == 200
    await app.hub.database.aclose()


@pytest.mark.requirement("http.health-and-ready", "errors.database-down-is-503")
async def test_ready_is_a_503_while_usage_records_cannot_be_written(lite: Served) -> None:
    writer = lite.app.hub.writer
    async with lite.database.unit_of_work() as uow:
        await uow.execute(text("ALTER TABLE event RENAME TO gone"))
    answer = await lite.call("POST", f"/api/servers/{lite.demo_id}/tools/echo/execute", {"parameters": {"text": "a"}})
    with anyio.fail_after(10):
        while not writer.failing:
            await anyio.lowlevel.checkpoint()
    refused = await lite.call("GET", "/ready", key="")
    async with lite.database.unit_of_work() as uow:
        await uow.execute(text("ALTER TABLE gone RENAME TO event"))
    await writer.flush()
    assert (answer.status_code, refused.status_code, refused.json()["error"]["code"]) == (200, 503, "UNAVAILABLE")
    assert (await lite.call("GET", "/ready", key="")).status_code == 200


@pytest.mark.requirement("http.public-status")
async def test_status_is_for_everybody_and_says_only_whether_the_hub_works(served: Served) -> None:
    well = {"api": "operational", "database": "operational", "records": "operational"}
    found = await served.call("GET", "/status", key="")
    parts = [{"name": name, "status": how} for name, how in well.items()]
    assert (found.status_code, found.json()) == (200, {"status": "operational", "components": parts})
    page = await served.call("GET", "/status", key="", headers={"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html") and "Plughub is operational" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert {answer.headers["cache-control"] for answer in (found, page)} == {"no-store"}


@pytest.mark.requirement("http.public-status")
async def test_status_is_degraded_without_a_database_and_says_not_why(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url="postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=2")
    app = create_app(settings, Secrets(Peppers({1: bytes(32)}), Sealer({1: bytes(32)})))
    transport = httpx2.ASGITransport(app=app.asgi)  # type: ignore[arg-type]
    async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
        found = await client.get("/status")
        assert (found.status_code, found.json()["status"]) == (200, "degraded")
        assert {"name": "database", "status": "down"} in found.json()["components"] and "nobody" not in found.text
    await app.hub.database.aclose()


@pytest.mark.requirement("http.metrics")
async def test_metrics_are_for_loopback_and_for_the_operators_key(served: Served) -> None:
    await served.call("GET", "/api/servers")
    await served.app.hub.writer.flush()
    text = (await served.call("GET", "/metrics", key="")).text
    assert 'plughub_http_requests_total{method="GET",route="/api/servers",status="2xx"}' in text
    assert 'plughub_http_request_seconds_bucket{le="+Inf",method="GET",route="/api/servers"}' in text
    for name in ("process_resident_memory_bytes", "plughub_children ", "plughub_events_waiting 0.0", "plughub_events_written_total"):
        assert name in text
    tenant = await served.key_of(await served.organization("Tenant"))
    transport = httpx2.ASGITransport(app=served.app.asgi, client=("192.0.2.7", 1))  # type: ignore[arg-type]
    async with httpx2.AsyncClient(transport=transport, base_url=BASE) as outside:
        for key, status in (("", 401), (tenant, 403), (served.key, 200)):
            answer = await outside.get("/metrics", headers={"Authorization": f"Bearer {key}"} if key else {})
            assert answer.status_code == status


@pytest.mark.requirement("http.metrics")
@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
async def test_behind_a_proxy_loopback_is_the_proxys_and_does_not_count(lite: Served, name: str) -> None:
    for value in ("192.0.2.7", ""):
        assert (await lite.call("GET", "/metrics", key="", headers={name: value})).status_code == 401
        assert (await lite.call("GET", "/metrics", headers={name: value})).status_code == 200
    assert (await lite.call("GET", "/metrics", key="")).status_code == 200


@pytest.mark.requirement("limits.rate-limit-route", "limits.not-counted")
async def test_the_rate_limit_route_tells_the_state_and_counts_nothing(served: Served) -> None:
    key = await served.key_of(await served.organization("Counted", "free"))
    for _ in range(3):
        told = (await served.call("GET", "/api/rate-limit", key=key)).json()
        assert told["tier"] == "free"
        assert told["hourly"] | {"reset": 0} == {"limit": 100, "remaining": 100, "reset": 0}
        assert told["burst"] == {"limit": 10, "remaining": 10}
        assert told["concurrency"] == {"limit": 2, "remaining": 2}
    counted = await served.call("GET", "/api/servers", key=key)
    assert counted.headers["x-ratelimit-remaining"] == "99"
    told = await served.call("GET", "/api/rate-limit", key=key)
    assert (told.json()["hourly"]["remaining"], told.json()["burst"]["remaining"]) == (99, 9)
    assert told.headers["x-ratelimit-remaining"] == "99"
    assert told.headers["x-ratelimit-reset"] == str(told.json()["hourly"]["reset"])
    served.clock.advance(7200)
    later = await served.call("GET", "/api/rate-limit", key=key)
    assert later.headers["x-ratelimit-remaining"] == "100"


@pytest.mark.requirement("limits.concurrency")
async def test_a_place_comes_back_whatever_the_answer(served: Served) -> None:
    key = await served.key_of(await served.organization("Places", "free"))
    for path, status in (("/api/servers/nope", 404), ("/api/servers?limit=x", 400), ("/api/servers", 200)):
        assert (await served.call("GET", path, key=key)).status_code == status
        told = (await served.call("GET", "/api/rate-limit", key=key)).json()
        assert told["concurrency"]["remaining"] == 2


@pytest.mark.requirement("keys.environments-apart")
async def test_test_calls_have_counters_of_their_own(served: Served) -> None:
    organization = await served.organization("Two counters", "free")
    live, test = await served.key_of(organization), await served.key_of(organization, "test")
    assert (await served.call("GET", "/api/servers", key=live)).headers["x-ratelimit-remaining"] == "99"
    assert (await served.call("GET", "/api/servers", key=live)).headers["x-ratelimit-remaining"] == "98"
    assert (await served.call("GET", "/api/servers", key=test)).headers["x-ratelimit-remaining"] == "99"


@pytest.mark.requirement("limits.unauthenticated-by-address")
async def test_whoever_has_no_key_is_counted_by_address(lite_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url=lite_url, address_limit_per_minute=3)
    app = create_app(settings, Secrets(Peppers({1: bytes(32)}), Sealer({1: bytes(32)})))
    answers = []
    for host in ("192.0.2.1", "192.0.2.2"):
        transport = httpx2.ASGITransport(app=app.asgi, client=(host, 1))  # type: ignore[arg-type]
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
            answers.append([await client.get("/api/servers", headers={"Authorization": "Bearer x"}) for _ in range(5)])
    for of_address in answers:
        assert [answer.status_code for answer in of_address] == [401, 401, 401, 429, 429]
        assert [answer.headers["x-ratelimit-remaining"] for answer in of_address] == ["2", "1", "0", "0", "0"]
        assert of_address[-1].json()["error"]["details"]["policy"] == "address"
        assert int(of_address[-1].headers["retry-after"]) >= 1


async def test_the_metadata_name_the_resource_that_was_asked_about(served: Served) -> None:
    well_known = "/.well-known/oauth-protected-resource"
    for path, resource in (("", "/mcp"), ("/mcp", "/mcp"), ("/servers/abc/mcp", "/servers/abc/mcp")):
        told = (await served.call("GET", well_known + path, key="")).json()
        assert told["resource"] == BASE + resource
        assert set(told["scopes_supported"]) < SCOPES
        assert told["bearer_methods_supported"] == ["header"]
