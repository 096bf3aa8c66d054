"""A trace goes through the hub: passed on as it is, or with the hub's own spans when there is a collector."""

import asyncio
import gzip
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from plughub.gateway.tracing import open_traces, passed_on
from plughub.settings import load_settings
from tests.fakes.http_servers import HttpServer, Seen, reply
from tests.serving import FakeMcp, Served, serving, upstream

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("usage.traces")]
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
HEADERS = {"traceparent": PARENT, "tracestate": "vendor=1,other=2"}
OTHER = "00-11111111111111111111111111111111-2222222222222222-01"


class Collector:
    """Takes what an exporter sends."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    async def __call__(self, seen: Seen, _writer: asyncio.StreamWriter) -> bytes:
        assert (seen.method, seen.target) == ("POST", "/v1/traces")
        body = gzip.decompress(seen.body) if seen.header("content-encoding") == "gzip" else seen.body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return reply(200)


@pytest.fixture
async def plain(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Served]:
    shutil.copyfile(sqlite_template, tmp_path / "plughub.db")
    async with serving(f"sqlite:///{tmp_path}/plughub.db", tmp_path) as served:
        yield served


def told(fake: FakeMcp) -> dict[str, Any]:
    meta = fake.calls[-1].json["params"].get("_meta", {})
    return {name: meta[name] for name in ("traceparent", "tracestate", "own/key") if name in meta}


async def test_without_a_collector_the_headers_of_a_call_go_on_in_meta_and_meta_goes_on_as_it_is(plain: Served) -> None:
    for era in ("legacy", "modern"):
        fake = FakeMcp(era)
        async with upstream(plain, fake) as made:
            path = f"/api/servers/{made['uuid']}/tools/echo/execute"
            await plain.call("POST", path, {"parameters": {}}, headers=HEADERS)
            assert told(fake) == HEADERS
            await plain.call("POST", path, {"parameters": {}})
            assert told(fake) == {}
            await plain.call("POST", path, {"parameters": {}}, headers={**HEADERS, "traceparent": PARENT.upper()})
            assert told(fake) == {}, "what is not well-formed is no trace"
            params = {"name": "echo", "arguments": {}}
            door = f"/servers/{made['uuid']}/mcp"
            await plain.rpc("tools/call", params, path=door, headers=HEADERS)
            assert told(fake) == HEADERS
            meta = {"traceparent": OTHER, "own/key": 1}
            await plain.rpc("tools/call", {**params, "_meta": meta}, path=door, headers=HEADERS)
            assert told(fake) == meta, "the message's own word is the server's"
    assert plain.app.asgi.traces is None


async def test_with_a_collector_a_call_has_three_spans_and_the_server_hears_of_the_last(sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "plughub.db")
    collector, fake = Collector(), FakeMcp()
    async with HttpServer(collector) as server:
        endpoint = f"http://{urlsplit(server.url).netloc}"
        async with serving(f"sqlite:///{tmp_path}/plughub.db", tmp_path, otlp_endpoint=endpoint) as served, upstream(served, fake) as made:
            path = f"/api/servers/{made['uuid']}/tools/echo/execute"
            assert (await served.call("POST", path, {"parameters": {}}, headers=HEADERS)).status_code == 200
            heard = told(fake)
            params = {"name": "echo", "arguments": {}, "_meta": {"traceparent": OTHER}}
            await served.rpc("tools/call", params, path=f"/servers/{made['uuid']}/mcp")
            second = told(fake)
            missing = f"/api/servers/{made['uuid']}/tools/none/execute"
            assert (await served.call("POST", missing, {"parameters": {}}, headers=HEADERS)).status_code == 404
        spans = {span.span_id.hex(): span for span in collector.spans}
    of_trace = [span for span in spans.values() if span.trace_id.hex() == TRACE]
    door, ours, theirs = (next(span for span in of_trace if span.name.startswith(begin)) for begin in ("POST", "exchange", "upstream"))
    assert door.name == "POST /api/servers/{uuid}/tools/{tool}/execute" and door.parent_span_id.hex() == SPAN
    assert ours.parent_span_id == door.span_id and theirs.parent_span_id == ours.span_id
    assert heard == {"traceparent": f"00-{TRACE}-{theirs.span_id.hex()}-01", "tracestate": HEADERS["tracestate"]}
    assert sum(span.name == door.name for span in of_trace) == 2 and sum(span.name.startswith("exchange") for span in of_trace) == 1
    linked = next(span for span in spans.values() if span.trace_id.hex() == OTHER[3:35])
    assert (linked.parent_span_id.hex(), second["traceparent"]) == (OTHER[36:52], f"{OTHER[:36]}{linked.span_id.hex()}-01")
    [link] = linked.links
    assert spans[link.span_id.hex()].name == "exchange tools/call"
    keys = {attribute.key for span in spans.values() for attribute in span.attributes}
    assert keys <= {
        *("http.request.method", "http.response.status_code", "error.type"),
        *("mcp.method.name", "plughub.server_id", "plughub.request_id"),
    }


async def test_a_collector_that_is_away_costs_no_request_and_no_long_stop(sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "plughub.db")
    with anyio.fail_after(20):
        async with serving(f"sqlite:///{tmp_path}/plughub.db", tmp_path, otlp_endpoint="http://127.0.0.1:9") as served:
            assert (await served.call("GET", "/api/servers")).status_code == 200


def test_no_endpoint_no_traces_and_the_standard_variable_counts_too() -> None:
    assert open_traces("") is None and load_settings({}).otlp_endpoint == ""
    standard = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318"}
    assert load_settings(standard).otlp_endpoint == "http://a:4318"
    assert load_settings({**standard, "PLUGHUB_OTLP_ENDPOINT": "http://b:4318"}).otlp_endpoint == "http://b:4318"


@pytest.mark.parametrize("parent", [b"", b"00-x", PARENT.encode() + b"-extra", b'"' + PARENT.encode() + b'"'])
def test_what_is_no_trace_is_not_passed_on(parent: bytes) -> None:
    assert passed_on({b"traceparent": parent, b"tracestate": b"a=1"}) is None
    assert passed_on({}) is None


def test_a_state_that_is_too_long_is_left_out() -> None:
    found = passed_on({b"traceparent": PARENT.encode(), b"tracestate": b"a=" + b"1" * 600})
    assert found is not None and set(found.asking(None)) == {"traceparent"}
