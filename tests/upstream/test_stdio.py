"""One child, many callers: who gets which answer, and what a misbehaving server costs."""

import json
import re
import tracemalloc
from functools import partial

import anyio
import pytest

from plughub.kit.errors import Unavailable, UpstreamTimeout, UpstreamUnreachable
from plughub.settings import Settings
from plughub.upstream.pool import Pool
from plughub.upstream.target import Answer, Ask, RawJson, Upstream
from tests.upstream.support import Recorder, call, stdio, text, tool

pytestmark = pytest.mark.anyio

ERAS = pytest.mark.parametrize("era", ["legacy", "modern", "dual"])


@pytest.mark.requirement("upstream.stdio-both-eras")
@ERAS
async def test_a_server_of_each_era_answers(pool: Pool, era: str) -> None:
    upstream = await pool.get(stdio(era))
    assert (upstream.facts.era, upstream.facts.version) == (("legacy", "2025-11-25") if era == "legacy" else ("modern", "2026-07-28"))
    assert json.loads(upstream.facts.server_info) == {"name": "fake", "version": "1"}
    assert json.loads(upstream.facts.capabilities) == {"tools": {}}
    assert upstream.facts.instructions == (b'"be kind"' if era == "legacy" else None)
    assert await call(upstream, "echo", text="hé\n") == "hé\n"


@pytest.mark.requirement("upstream.stdio-both-eras")
async def test_an_older_revision_is_taken_as_it_is(pool: Pool) -> None:
    assert (await pool.get(stdio("legacy", "old"))).facts.version == "2024-11-05"


async def test_a_server_that_leaves_at_the_sight_of_the_probe_is_started_again_without_it(pool: Pool, hooks: Recorder) -> None:
    upstream = await pool.get(stdio("shy"))
    assert upstream.facts.era == "legacy"
    assert [status for _, status, _ in hooks.statuses] == ["connecting", "connected"]
    assert len(pool.snapshot().children) == 1


async def seen(upstream: Upstream) -> list[dict[str, object]]:
    found = json.loads(await call(upstream, "report"))["seen"]
    assert isinstance(found, list)
    return found


async def test_what_a_legacy_server_sees(pool: Pool) -> None:
    upstream = await pool.get(stdio("legacy"))
    ask = tool("echo", text="x")
    ask.meta = {"traceparent": b'"00-1"'}
    await upstream.request(ask)
    discover, initialize, initialized, echo, *_ = await seen(upstream)
    assert discover["method"] == "server/discover"
    assert initialize["params"] == {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "plughub", "version": "0.1.0"},
    }
    assert initialized == {"jsonrpc": "2.0", "method": "notifications/initialized", "params": {}}
    assert echo["params"] == {"name": "echo", "arguments": {"text": "x"}, "_meta": {"traceparent": "00-1"}}


async def test_what_a_modern_server_sees(pool: Pool) -> None:
    upstream = await pool.get(stdio("modern"))
    await call(upstream, "echo", text="x")
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "plughub", "version": "0.1.0"},
    }
    for message in await seen(upstream):
        assert message["params"]["_meta"] == meta  # type: ignore[index]


async def test_pretty_printed_arguments_stay_one_line(pool: Pool) -> None:
    upstream = await pool.get(stdio("legacy"))
    ask = Ask("tools/call", {"name": b'"echo"', "arguments": b'{\r\n  "text":\n "a\\nb"\n}'}, 5)
    assert text(await upstream.request(ask)) == "a\nb"


async def test_answers_reach_their_own_callers_in_any_order(pool: Pool) -> None:
    upstream = await pool.get(stdio("legacy"))
    answers: dict[str, str] = {}

    async def hold(key: str) -> None:
        answers[key] = await call(upstream, "hold", key=key)

    async with anyio.create_task_group() as group:
        for key in "abc":
            group.start_soon(hold, key)
        with anyio.fail_after(5):
            while len(upstream.calls.pending) < 3:  # type: ignore[attr-defined]
                await anyio.lowlevel.checkpoint()
        for key in "cab":
            await call(upstream, "release", key=key)
    assert answers == {key: f"released {key}" for key in "abc"}


async def test_progress_reaches_the_caller_and_other_notifications_the_hooks(pool: Pool, hooks: Recorder) -> None:
    upstream = await pool.get(stdio("legacy"))
    heard: list[tuple[str, dict[str, RawJson]]] = []
    await upstream.request(tool("progress", notify=lambda method, params: heard.append((method, params))))
    assert heard == [("notifications/progress", {"progress": b"1"}), ("notifications/progress", {"progress": b"2"})]
    # The message may belong to anybody's call: nobody hears it.
    assert [method for method, _ in hooks.notifications] == ["notifications/progress"]


async def test_a_server_s_own_requests_are_answered(pool: Pool) -> None:
    upstream = await pool.get(stdio("legacy"))
    await call(upstream, "ask")
    replies = json.loads(await call(upstream, "report"))["replies"]
    error = {"code": -32601, "message": "Method not found"}
    assert replies == [{"jsonrpc": "2.0", "id": "s-1", "result": {}}, {"jsonrpc": "2.0", "id": "s-2", "error": error}]


async def test_an_error_of_the_server_passes_as_it_came(pool: Pool) -> None:
    answer = await (await pool.get(stdio("legacy"))).request(tool("refuse"))
    assert answer == Answer(error=b'{"code": -32602, "message": "no", "data": {"x": 1}}')


async def test_a_batch_of_2025_03_26_is_read(pool: Pool, hooks: Recorder) -> None:
    answer = await (await pool.get(stdio("legacy"))).request(tool("batch"))
    assert answer.result == b'{"content": []}'
    assert hooks.notifications[0][0] == "notifications/tools/list_changed"


# ---- giving up


async def cancelled(upstream: Upstream) -> list[dict[str, object]]:
    found = json.loads(await call(upstream, "report"))["cancelled"]
    assert isinstance(found, list)
    return found


@pytest.mark.requirement("upstream.timeout")
@ERAS
async def test_a_timeout_is_told_to_the_caller_and_to_the_server(pool: Pool, era: str) -> None:
    upstream = await pool.get(stdio(era))
    with pytest.raises(UpstreamTimeout, match=r"within 0\.05 s") as failed:
        await upstream.request(tool("hold", timeout_s=0.05, key="a"))
    assert failed.value.executed == "unknown"
    [note] = [note for note in await cancelled(upstream) if note["reason"] == "timeout"]
    held = [message for message in await seen(upstream) if message["params"].get("name") == "hold"]  # type: ignore[attr-defined]
    assert note["requestId"] == held[0]["id"]


@pytest.mark.requirement("upstream.cancel")
async def test_a_caller_that_goes_away_cancels_its_call_and_no_other(pool: Pool, hooks: Recorder) -> None:
    upstream = await pool.get(stdio("legacy"))
    async with anyio.create_task_group() as group:
        group.start_soon(partial(call, upstream, "hold", key="other"))
        with anyio.move_on_after(0.05):
            await call(upstream, "hold", key="mine")
        group.cancel_scope.cancel()
    assert [note["reason"] for note in await cancelled(upstream)].count("the caller went away") == 2
    await call(upstream, "release", key="mine")  # the late answer belongs to nobody
    assert hooks.logged("which no call waits for")
    assert await call(upstream, "echo", text="still here") == "still here"


@pytest.mark.requirement("upstream.bounded-concurrency")
async def test_calls_over_the_bound_are_refused_at_once(pool: Pool, settings: Settings) -> None:
    upstream = await pool.get(stdio("legacy"))
    async with anyio.create_task_group() as group:
        for number in range(settings.max_in_flight):
            group.start_soon(partial(call, upstream, "hold", key=str(number)))
        while len(upstream.calls.pending) < settings.max_in_flight:  # type: ignore[attr-defined]
            await anyio.lowlevel.checkpoint()
        with pytest.raises(Unavailable, match="8 calls"):
            await call(upstream, "echo", text="one more")
        group.cancel_scope.cancel()
    assert await call(upstream, "echo", text="room again") == "room again"


async def test_a_server_that_does_not_read_holds_up_only_its_callers(pool: Pool) -> None:
    upstream = await pool.get(stdio("legacy"))
    assert await call(upstream, "stop_reading") == "deaf from now on"
    big = {"name": b'"echo"', "arguments": b'{"text":"' + b"x" * 900_000 + b'"}'}
    outcomes: list[str] = []

    async def ask() -> None:
        try:
            await upstream.request(Ask("tools/call", big, 0.3))
        except UpstreamTimeout as error:
            outcomes.append(error.executed)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(ask)
    assert sorted(outcomes) == ["no"] * 4 + ["unknown"] * 2  # two filled the pipe and its buffer, the others never left


# ---- bad servers


@pytest.mark.requirement("upstream.executed-told-apart")
async def test_an_exit_fails_the_calls_under_way_at_once_and_says_why(pool: Pool, hooks: Recorder) -> None:
    upstream = await pool.get(stdio("legacy", env={"TOKEN": "s3cret-value"}))
    with anyio.fail_after(2), pytest.raises(UpstreamUnreachable) as failed:
        await call(upstream, "leave", code=3)
    assert failed.value.reason == "the server process exited with code 3: Error: out of luck with ***"
    assert failed.value.executed == "unknown"
    assert hooks.last() == ("error", failed.value.reason)
    assert hooks.logged("out of luck with ***") and not hooks.logged("s3cret-value")
    with pytest.raises(UpstreamUnreachable) as later:
        await upstream.request(tool("echo", text="x"))
    assert later.value.executed == "no"
    again = await pool.get(stdio("legacy"))
    assert await call(again, "echo", text="back") == "back"


async def test_a_closed_output_is_an_end_even_if_the_process_stays(pool: Pool, hooks: Recorder) -> None:
    upstream = await pool.get(stdio("legacy"))
    with anyio.fail_after(3), pytest.raises(UpstreamUnreachable, match="closed its input or output"):
        await call(upstream, "close_output")
    assert hooks.last()[0] == "error"


async def test_an_error_without_an_id_belongs_to_the_only_call(pool: Pool) -> None:
    answer = await (await pool.get(stdio("legacy"))).request(tool("nameless_error"))
    assert json.loads(bytes(answer.error or b""))["code"] == -32700


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"jsonrpc":"2.0","id":ID,"result":{"a":"\xff\xfe"}}', "not valid UTF-8"),
        ('{"jsonrpc":"2.0","id":ID,"result":{"a":', "not a JSON-RPC message"),
        ('{"jsonrpc":"2.0","id":ID,"result":{"a":NaN}}', "not a JSON-RPC message"),
        ('{"jsonrpc":"2.0","id":ID,"result":' + '{"a":' * 5000 + "1" + "}" * 5000 + "}", "nested too deeply"),
        ('{"jsonrpc":"2.0","id":ID,"result":null}', "neither a result object nor an error"),
        ('{"jsonrpc":"2.0","id":ID,"result":"text"}', "neither a result object nor an error"),
        ('{"jsonrpc":"2.0","id":ID}', "neither a result object nor an error"),
        ('{"jsonrpc":"2.0","id":ID,"error":"text"}', "not a JSON-RPC error"),
        ('{"jsonrpc":"2.0","id":ID,"result":{},"id":ID,"result":{"a":1}}', "appears twice"),
        ('{"id":ID,"result":{},"result":{"a":1}}', "'result' appears twice"),
        ('{"jsonrpc":"2.0","id":ID,"result":{},"error":{"code":1,"message":"x"}}', "both a result and an error"),
        ('{"jsonrpc":"2.0","id":ID,"error":{"code":"x"}}', "not a JSON-RPC error"),
        ('{"jsonrpc":"2.0","id":ID,"result":{"a":"' + "x" * 1_100_000 + '"}}', r"it has 1100\d+ bytes; the limit is 1048576"),
        ('{"jsonrpc":"2.0","result":{"a":"' + "x" * 1_100_000 + '"},"id":ID}', "bytes; the limit is"),
    ],
)
async def test_an_answer_that_cannot_be_read_fails_its_own_call_alone(pool: Pool, line: str, words: str) -> None:
    upstream = await pool.get(stdio("legacy"))
    async with anyio.create_task_group() as group:
        others: list[str] = []

        async def neighbour() -> None:
            others.append(await call(upstream, "hold", key="neighbour"))

        group.start_soon(neighbour)
        await anyio.lowlevel.checkpoint()
        with anyio.fail_after(5), pytest.raises(UpstreamUnreachable, match=words) as failed:
            await call(upstream, "raw", text=line)
        assert failed.value.executed == "unknown"
        await call(upstream, "release", key="neighbour")
    assert others == ["released neighbour"]


async def test_a_lone_surrogate_becomes_a_replacement_character(pool: Pool) -> None:
    """JavaScript cuts texts within a character; `\\\\ud83d` behind two backslashes is no escape, a pair is a character."""
    upstream = await pool.get(stdio("legacy"))
    sent = r'{"jsonrpc":"2.0","id":ID,"result":{"content":[{"text":"\ud83d|\ude00|\ud83d\ude00|\\ud83d|\n"}]}}'
    answer = await upstream.request(tool("raw", text=sent))
    assert json.loads(bytes(answer.result or b""))["content"][0]["text"] == "\ufffd|\ufffd|\U0001f600|\\ud83d|\n"


@pytest.mark.parametrize(
    "line", ["Welcome!", "{]", "[1, 2]", "42", '""', '{"id":true}', '{"jsonrpc":"2.0","id":"77","result":{}}', "[]", "\xff"]
)
async def test_garbage_is_logged_and_harms_nobody(pool: Pool, hooks: Recorder, line: str) -> None:
    upstream = await pool.get(stdio("legacy"))
    with pytest.raises((UpstreamTimeout, UpstreamUnreachable)):
        await upstream.request(tool("raw", timeout_s=0.1, text=line))
    assert line == "[]" or hooks.logged("plughub: ")
    assert await call(upstream, "echo", text="fine") == "fine"


@pytest.mark.parametrize(("mode", "words"), [("wrong-id", "within 0.3 s"), ("never-answers", "within 0.3 s")])
async def test_an_answer_that_never_comes_is_a_timeout(pool: Pool, mode: str, words: str) -> None:
    upstream = await pool.get(stdio(mode, script="bad_stdio.py"))
    with pytest.raises(UpstreamTimeout, match=re.escape(words)):
        await upstream.request(tool("bad", timeout_s=0.3))
    assert await call(upstream, "echo", text="fine") == "fine"


async def test_a_doubled_answer_is_ignored_the_second_time(pool: Pool, hooks: Recorder) -> None:
    upstream = await pool.get(stdio("doubled-id", script="bad_stdio.py"))
    assert await call(upstream, "bad") == "first"
    assert await call(upstream, "echo", text="fine") == "fine"
    assert hooks.logged("which no call waits for, was ignored")


async def test_a_line_of_10_mb_costs_its_call_and_little_memory(pool: Pool) -> None:
    upstream = await pool.get(stdio("huge-line", script="bad_stdio.py"))
    await call(upstream, "echo", text="warm")
    tracemalloc.start()
    try:
        with pytest.raises(UpstreamUnreachable, match="the limit is 1048576"):
            await call(upstream, "bad")
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert await call(upstream, "echo", text="fine") == "fine"


async def test_endless_stderr_is_slowed_down_and_told_once(pool: Pool, hooks: Recorder) -> None:
    upstream = await pool.get(stdio("endless-stderr", script="bad_stdio.py"))
    with anyio.fail_after(5):
        await hooks.until(lambda: hooks.logged("stderr is read at 256 KiB"))
        for _ in range(20):
            assert await call(upstream, "echo", text="fine") == "fine"
    assert sum(len(line) for line in hooks.lines) < 1024 * 1024
    assert sum("stderr is read" in line for line in hooks.lines) == 1


async def test_a_server_that_never_shakes_hands_says_what_it_printed(pool: Pool, hooks: Recorder, settings: Settings) -> None:
    pool._settings = settings.model_copy(update={"start_timeout_s": 0.6})
    with pytest.raises(UpstreamTimeout, match=r"did not answer initialize within 0\.6 s; it printed: ") as failed:
        await pool.get(stdio("garbage-only", script="bad_stdio.py"))
    assert failed.value.executed == "no"
    assert hooks.last()[0] == "error"
    with pytest.raises(UpstreamTimeout, match="did not answer initialize"):
        await pool.get(stdio("silent", script="bad_stdio.py", slug="other"))


async def test_a_server_that_exits_at_once_is_told_with_its_last_words(pool: Pool, hooks: Recorder) -> None:
    with anyio.fail_after(5), pytest.raises(UpstreamUnreachable, match="exited with code 3: cannot open the database") as failed:
        await pool.get(stdio("exits", script="bad_stdio.py"))
    assert failed.value.executed == "no"
    assert hooks.last() == ("error", "the server process exited with code 3: cannot open the database")
