"""Input in the middle of a request: what a server asks reaches the client that it works for, in any pairing of eras and transports."""

import asyncio
import json
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from sqlalchemy import text

from tests.mcp.answers import one
from tests.mcp.asking_clients import (
    ALL,
    FORM,
    PAGE,
    ROOTS,
    SAMPLE,
    Legacy,
    Modern,
    answering,
    answers_in,
    asking,
    at_rest,
    client,
    events,
    until,
)
from tests.serving import Json, Served

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("modern", [False, True], ids=["legacy-client", "modern-client"])
KINDS = pytest.mark.parametrize("kind", ["legacy", "modern", "stdio", "sse"])
OLD = pytest.mark.parametrize("kind", ["legacy", "stdio", "sse"])


async def outcomes(lite: Served, made: Json) -> list[str]:
    await lite.app.hub.writer.flush()
    async with lite.database.read() as connection:
        query = text("SELECT outcome FROM event WHERE server_id = :id AND name LIKE 'tool.%' ORDER BY seq")
        return [row[0] for row in await connection.execute(query, {"id": made["uuid"]})]


@pytest.mark.requirement("mcp.input-in-any-pairing")
@ERAS
@KINDS
@pytest.mark.parametrize("door", ["one", "all"])
async def test_what_a_server_asks_reaches_the_client_and_the_answers_come_back(lite: Served, modern: bool, kind: str, door: str) -> None:
    async with asking(lite, kind) as (_, made):
        path, name = (one(made), "ask") if door == "one" else ("/mcp", f"{made['slug']}__ask")
        someone = await client(modern, lite, path, answering("canary"))
        rounds = [[FORM, SAMPLE, ROOTS], [FORM]]
        found = await someone.call(name, {"rounds": rounds, "mark": "m"})
        answers = answers_in(found["result"])
        form, sample, roots = (
            answering("canary")("elicitation/create", {}),
            answering("canary")("", {}),
            answering("canary")("roots/list", {}),
        )
        assert answers == {"mark": "m", "answers": [form, sample, roots, form]}
        assert [method for method, _ in someone.asked] == [question[0] for asked in rounds for question in asked]
        assert someone.asked[0][1] == FORM[1]
        if isinstance(someone, Modern):
            assert someone.rounds == 2, "what is asked at once is one round"
        assert await outcomes(lite, made) == (["ok"] if not (modern and kind == "modern") else ["ok"] * 3)
        await until(lambda: at_rest(lite))


@ERAS
@pytest.mark.parametrize("kind", ["legacy"])
async def test_a_server_may_ask_on_its_own_stream(lite: Served, modern: bool, kind: str) -> None:
    async with asking(lite, kind) as (behind, made):
        behind.own_streams = True
        someone = await client(modern, lite, one(made), answering("canary"))
        for mark in ("first", "second"):
            found = await someone.call("ask", {"rounds": [[FORM]], "mark": mark})
            assert answers_in(found["result"]) == {"mark": mark, "answers": [answering("canary")("elicitation/create", {})]}
        await until(lambda: at_rest(lite))


@ERAS
@OLD
async def test_prompts_and_resources_may_need_input_too(lite: Served, modern: bool, kind: str) -> None:
    async with asking(lite, "stdio" if kind == "sse" else kind) as (_, made):
        someone = await client(modern, lite, one(made), answering("p"))
        found = await someone.call("ask", {"rounds": [[FORM]], "mark": "p"}, method="prompts/get")
        assert answers_in(found["result"])["answers"] == [{"action": "accept", "content": {"name": "p"}}]


@pytest.mark.requirement("mcp.input-in-any-pairing")
@KINDS
async def test_two_clients_of_one_server_never_get_each_others_questions_or_answers(lite: Served, kind: str) -> None:
    async with asking(lite, kind) as (_, made):
        modern = kind != "sse"  # the fake of the older transport speaks to one stream alone
        people = [
            await client(number % 2 == 0 and modern, lite, one(made), answering(f"c{number}")) for number in range(1 if not modern else 6)
        ]

        async def talk(number: int) -> None:
            for turn in range(3):
                mark = f"m{number}-{turn}"
                question = ["elicitation/create", {"message": mark, "requestedSchema": {"type": "object"}}]
                found = await people[number].call("ask", {"rounds": [[question, SAMPLE], [ROOTS]], "mark": mark})
                answers = answers_in(found["result"])
                mine = answering(f"c{number}")
                assert answers == {"mark": mark, "answers": [mine("elicitation/create", {}), mine("", {}), mine("roots/list", {})]}

        await asyncio.gather(*(talk(number) for number in range(len(people))))
        for number, person in enumerate(people):
            messages = {params["message"] for method, params in person.asked if method == "elicitation/create"}
            assert messages == {f"m{number}-{turn}" for turn in range(3)}


@OLD
async def test_a_lent_connection_has_one_call_at_a_time(lite: Served, kind: str) -> None:
    if kind != "legacy":
        pytest.skip("seen from inside the fake over HTTP alone")
    async with asking(lite, kind) as (behind, made):
        someone = Modern(lite, one(made), answering("x"), {"elicitation": {}})
        await asyncio.gather(*(someone.call("ask", {"rounds": [[FORM]]}) for _ in range(5)))
        lent = [each for each in behind.clients.values() if each.capabilities]
        assert 1 <= len(lent) <= 5
        assert all(each.most_at_once == 1 for each in lent)
        assert all(each.capabilities == {"elicitation": {}} for each in lent)


# --- clients that answer badly


@KINDS
async def test_a_client_that_declines_or_refuses_to_show_is_told_to_the_server(lite: Served, kind: str) -> None:
    async with asking(lite, kind) as (_, made):
        declines = await client(False, lite, one(made), lambda method, params: {"action": "decline"})
        assert answers_in((await declines.call("ask", {"rounds": [[FORM]]}))["result"])["answers"] == [{"action": "decline"}]
        error = {"code": -1, "message": "no"}
        refuses = await client(False, lite, one(made), lambda method, params: error)
        found = await refuses.call("ask", {"rounds": [[FORM]]})
        expected: Json = {"action": "cancel"} if kind == "modern" else error
        assert answers_in(found["result"])["answers"] == [expected]


@pytest.mark.requirement("mcp.input-bounded")
async def test_an_error_to_one_question_of_a_modern_server_makes_the_others_void(lite: Served) -> None:
    async with asking(lite, "modern") as (behind, made):
        someone = await Legacy.open(lite, one(made), lambda method, params: {"code": -1, "message": "no"} if method == SAMPLE[0] else None)
        found = await someone.call("ask", {"rounds": [[FORM, SAMPLE]]})
        assert "sampling" in found["error"]["message"]
        session = lite.app.sessions._by_key
        assert not any(each._questions for sessions in session.values() for each in sessions.values())
        assert len(behind.modern) == 1
        assert {"method": "notifications/cancelled", "jsonrpc": "2.0", "params": {"requestId": "q1"}} in someone.told


@KINDS
async def test_an_answer_with_a_wrong_key_and_a_second_one_change_nothing(lite: Served, kind: str) -> None:
    async with asking(lite, kind) as (_, made):
        someone = await Legacy.open(lite, one(made), lambda method, params: None)
        other = await Legacy.open(lite, one(made), answering("other"))
        raw = someone.start("ask", {"rounds": [[FORM]]})
        running = raw.start()
        await raw.answer.until(lambda: bool(events(raw)))
        id_ = events(raw)[0]["id"]
        good: Json = {"action": "accept", "content": {"name": "me"}}
        for wrong in ("q99", 1, "late"):
            assert (await someone.say({"id": wrong, "result": {"action": "accept"}})).status_code == 202
        assert (await other.say({"id": id_, "result": {"action": "accept", "content": {"name": "thief"}}})).status_code == 202
        assert not running.done()
        for result in (good, {"action": "decline"}):
            assert (await someone.say({"id": id_, "result": result})).status_code == 202
        await running
        assert answers_in(events(raw)[-1]["result"])["answers"] == [good]


@pytest.mark.requirement("mcp.input-bounded")
@KINDS
async def test_a_client_that_cancels_while_its_user_is_asked_takes_the_question_back(lite: Served, kind: str) -> None:
    async with asking(lite, kind) as (_, made):
        someone = await Legacy.open(lite, one(made), lambda method, params: None)
        raw = someone.start("ask", {"rounds": [[FORM]]}, id_="c")
        running = raw.start()
        await raw.answer.until(lambda: bool(events(raw)))
        await someone.say({"method": "notifications/cancelled", "params": {"requestId": "c"}})
        await running
        assert events(raw)[-1]["error"]["code"] == -32800
        assert any(message.get("method") == "notifications/cancelled" for message in events(raw))
        await until(lambda: at_rest(lite))
        assert await outcomes(lite, made) == ["CANCELLED"]


async def test_a_key_that_is_revoked_while_its_user_is_asked_ends_the_call(lite: Served) -> None:
    async with asking(lite, "legacy") as (behind, made):
        for modern in (False, True):
            key = (await lite.call("POST", "/api/auth/keys", {"name": "k"})).json()
            if modern:
                await Modern(lite, one(made), answering(""), key=key["key"]).request("ask", {"rounds": [[FORM]]})
                assert len(lite.app.hub.parking) == 1
            else:
                someone = await Legacy.open(lite, one(made), lambda method, params: None, key=key["key"])
                raw = someone.start("ask", {"rounds": [[FORM]]})
                running = raw.start()
                await raw.answer.until(lambda raw=raw: bool(events(raw)))
            await lite.call("DELETE", f"/api/auth/keys/{key['id']}")
            await until(lambda: at_rest(lite))
            if not modern:
                await running
        assert [each for each in await outcomes(lite, made) if each != "ok"] == ["CANCELLED"] * 2
        lent = [each for each in behind.clients.values() if each.capabilities]
        with anyio.fail_after(5):
            while not all(each.cancelled for each in lent):
                await checkpoint()


# --- servers that ask badly


@pytest.mark.requirement("mcp.undeclared-capability")
@OLD
async def test_a_modern_client_is_told_what_it_would_have_had_to_declare(lite: Served, kind: str) -> None:
    async with asking(lite, kind) as (_, made):
        for capabilities, question, lacks in (
            ({}, SAMPLE, {"sampling": {}}),
            ({"elicitation": {}}, SAMPLE, {"sampling": {}}),
            ({"sampling": {}}, FORM, {"elicitation": {}}),
            ({"elicitation": {"form": {}}}, PAGE, {"elicitation": {"url": {}}}),
            ({"elicitation": {"url": {}}}, FORM, {"elicitation": {"form": {}}}),
            ({"experimental": {"sampling": {}}}, SAMPLE, {"sampling": {}}),
        ):
            answer = await Modern(lite, one(made), answering(""), capabilities).request("ask", {"rounds": [[question]]})
            assert answer.status_code == 400, answer.text
            error = answer.json()["error"]
            assert (error["code"], error["data"]["requiredCapabilities"]) == (-32021, lacks)
        await until(lambda: at_rest(lite))


@KINDS
async def test_a_legacy_client_is_not_asked_what_it_did_not_declare(lite: Served, kind: str) -> None:
    async with asking(lite, kind) as (_, made):
        for capabilities in ({}, {"elicitation": {}}, {"elicitation": {}, "experimental": {"sampling": {}}}):
            someone = await Legacy.open(lite, one(made), answering(""), capabilities)
            found = await someone.call("ask", {"rounds": [[SAMPLE]]})
            assert someone.asked == []
            if kind == "modern":
                assert found["error"]["data"]["code"] == "UPSTREAM_ERROR"
            else:
                assert answers_in(found["result"])["answers"][0]["code"] == -32601


async def test_a_modern_server_cannot_make_the_hub_send_a_client_any_request(lite: Served) -> None:
    async with asking(lite, "modern") as (_, made):
        someone = await Legacy.open(lite, one(made), answering(""))
        found = await someone.call("ask", {"rounds": [[["tools/call", {"name": "rm"}]]]})
        assert someone.asked == []
        assert "tools/call" in found["error"]["message"]


@ERAS
@OLD
async def test_a_server_that_withdraws_its_question_is_not_waited_for(lite: Served, modern: bool, kind: str) -> None:
    async with asking(lite, kind) as (_, made):
        someone = await client(modern, lite, one(made), lambda method, params: None)
        found = await someone.call("ask", {"rounds": [[FORM]], "withdraw": True})
        assert answers_in(found["result"])["answers"] == ["withdrawn"]
        await until(lambda: at_rest(lite))


@ERAS
@pytest.mark.parametrize("kind", ["legacy", "stdio"])
async def test_a_server_that_dies_after_its_questions_is_an_error(lite: Served, modern: bool, kind: str) -> None:
    async with asking(lite, kind) as (_, made):
        someone = await client(modern, lite, one(made), answering(""))
        found = await someone.call("ask", {"rounds": [[FORM]], "end": "die"})
        assert found["error"]["data"]["executed"] == "unknown"
        assert await outcomes(lite, made) == ["UPSTREAM_ERROR"]
        await until(lambda: at_rest(lite))


async def test_a_server_that_is_deleted_while_a_user_is_asked_ends_the_call(lite: Served) -> None:
    async with asking(lite, "stdio") as (_, made):
        someone = Modern(lite, one(made), answering(""))
        first = (await someone.request("ask", {"rounds": [[FORM]]})).json()["result"]
        children = lite.app.hub.pool.snapshot().children
        await lite.call("DELETE", f"/api/servers/{made['uuid']}")
        assert (await someone.request("ask", {"rounds": [[FORM]]}, **someone.reply_to(first))).status_code == 404
        await until(lambda: len(lite.app.hub.pool.snapshot().children) == len(children) - 2, 10)
        lite.clock.advance(301)
        lite.app.hub.parking.sweep()
        assert at_rest(lite)


@pytest.mark.requirement("mcp.input-bounded")
@ERAS
@KINDS
async def test_a_server_that_asks_without_end_is_given_no_answer_at_some_time(lite: Served, modern: bool, kind: str) -> None:
    async with asking(lite, kind) as (_, made):
        someone = await client(modern, lite, one(made), answering(""))
        if kind == "modern" and modern:
            pytest.skip("the client's own affair")
        end = {"end": "endless"} if kind == "modern" else {}
        with anyio.fail_after(15):
            found = await someone.call("ask", {"rounds": [[SAMPLE]] * (1 if kind == "modern" else 70 if not modern else 40), **end})
        if kind == "modern":
            assert "without coming to an end" in found["error"]["message"]
            assert len(someone.asked) == 8
        elif not modern:
            assert answers_in(found["result"])["answers"][64:] == [{"code": -32603, "message": "Too many requests to the client"}] * 6
        await until(lambda: at_rest(lite))


async def test_eight_rounds_are_not_too_many(lite: Served) -> None:
    async with asking(lite, "modern") as (_, made):
        someone = await Legacy.open(lite, one(made), answering("x"))
        assert len(answers_in((await someone.call("ask", {"rounds": [[SAMPLE]] * 8}))["result"])["answers"]) == 8


@OLD
async def test_a_late_answer_is_waited_for_longer_than_a_call_may_take(lite: Served, kind: str) -> None:
    """The time of the call stands still while somebody is asked, and runs again afterwards."""
    async with asking(lite, kind, call_timeout_ms=400) as (_, made):
        someone = await Legacy.open(lite, one(made), lambda method, params: None)
        raw = someone.start("ask", {"rounds": [[FORM]], "end": "hang"})
        running = raw.start()
        await raw.answer.until(lambda: bool(events(raw)))
        loop = asyncio.get_running_loop()
        later = loop.create_future()
        loop.call_later(0.6, later.set_result, None)
        await later
        assert not running.done()
        await someone.say({"id": events(raw)[0]["id"], "result": {"action": "decline"}})
        began = loop.time()
        with anyio.fail_after(5):
            await running
        assert events(raw)[-1]["error"]["data"]["code"] == "UPSTREAM_TIMEOUT"
        assert loop.time() - began < 3
        assert await outcomes(lite, made) == ["UPSTREAM_TIMEOUT"]


@pytest.mark.requirement("mcp.input-bounded")
@pytest.mark.parametrize("kind", ["legacy", "stdio"])
async def test_a_question_behind_a_flood_of_progress_or_as_large_as_a_picture_reaches_the_client(lite: Served, kind: str) -> None:
    async with asking(lite, kind) as (_, made):
        someone = await Legacy.open(lite, one(made), answering("x"))
        large = ["sampling/createMessage", {"messages": [{"data": "x" * 1_500_000}]}]
        arguments = {"rounds": [[FORM, large]], "flood": 1000}
        with anyio.fail_after(10):
            found = await someone.call("ask", arguments, _meta={"progressToken": 1})
        assert len(answers_in(found["result"])["answers"]) == 2


# --- pages to go to


@pytest.mark.requirement("mcp.url-needed")
async def test_a_legacy_servers_need_of_a_page_is_a_question_to_a_modern_client(lite: Served) -> None:
    async with asking(lite, "legacy") as (_, made):
        someone = Modern(lite, one(made), answering(""), {"elicitation": {"url": {}}})
        first = (await someone.request("ask", {"end": "pages"})).json()["result"]
        question = {"method": "elicitation/create", "params": {"mode": "url", "url": "https://example.com/a", "message": "Sign in"}}
        assert (first["resultType"], list(first["inputRequests"].values())) == ("input_required", [question])
        again = (await someone.request("ask", {"end": "pages"}, **someone.reply_to(first))).json()["result"]
        assert again == first, "the call runs again, and the server still wants it"
        plain = await Modern(lite, one(made), answering(""), {"elicitation": {}}).request("ask", {"end": "pages"})
        assert (plain.status_code, plain.json()["error"]["code"]) == (400, -32021)
        legacy = await Legacy.open(lite, one(made), answering(""))
        assert (await legacy.call("ask", {"end": "pages"}))["error"]["code"] == -32042


@pytest.mark.requirement("mcp.url-needed")
async def test_a_page_that_a_modern_server_asks_for_has_an_id_for_legacy_clients(lite: Served) -> None:
    async with asking(lite, "modern") as (_, made):
        someone = await Legacy.open(lite, one(made), lambda method, params: {"action": "accept"}, {"elicitation": {"url": {}}})
        found = await someone.call("ask", {"rounds": [[PAGE]]})
        assert answers_in(found["result"])["answers"] == [{"action": "accept"}]
        [(_, params)] = someone.asked
        assert {name: value for name, value in params.items() if name != "elicitationId"} == PAGE[1]
        assert params["elicitationId"]


# --- what belongs to one client


async def test_the_list_of_tools_is_that_of_the_clients_own_capabilities(lite: Served) -> None:
    async with asking(lite, "legacy") as (_, made):
        for capabilities in ({}, {"sampling": {}}, ALL):
            names = {f"only-{name}" for name in capabilities}
            legacy = await Legacy.open(lite, one(made), answering(""), capabilities)
            found = (await lite.rpc("tools/list", path=one(made), headers=legacy.headers)).json()["result"]["tools"]
            assert {tool["name"] for tool in found if tool["name"].startswith("only-")} == names
            meta = {"_meta": {"io.modelcontextprotocol/clientCapabilities": capabilities}}
            found = (await lite.rpc("tools/list", meta, path=one(made), modern=True)).json()["result"]["tools"]
            assert {tool["name"] for tool in found if tool["name"].startswith("only-")} == names
        rest = (await lite.call("GET", f"/api/servers/{made['uuid']}/tools")).json()["tools"]
        assert not [tool for tool in rest if tool["name"].startswith("only-")]


@OLD
async def test_a_client_that_set_no_level_does_not_hear_what_another_one_asked_for(lite: Served, kind: str) -> None:
    if kind == "sse":
        pytest.skip("as over STDIO")
    async with asking(lite, kind) as (_, made):
        loud = await Legacy.open(lite, one(made), answering(""), {"sampling": {}})
        quiet = await Legacy.open(lite, one(made), answering(""), {"sampling": {}})
        await lite.rpc("logging/setLevel", {"level": "debug"}, path=one(made), headers=loud.headers)
        for someone, level in ((loud, "debug"), (quiet, None), (loud, "debug"), (quiet, None)):
            assert "error" not in await someone.call("tell", {})
            assert someone.told[-1]["params"]["data"] == f"at {level}"


async def test_roots_are_shown_to_no_server_on_behalf_of_another_client(lite: Served) -> None:
    async with asking(lite, "stdio", "eager") as (_, made):
        people = [await Legacy.open(lite, one(made), answering(f"r{number}"), {"roots": {}}) for number in range(2)]
        for _ in range(2):
            for number, someone in enumerate(people):
                await someone.call("ask", {"rounds": [[ROOTS]]})
                heard = json.loads((await someone.call("report", {}))["result"]["content"][0]["text"])
                uris = {root["uri"] for answer in heard["answers"] for root in answer["result"]["roots"]}
                assert uris == {f"file:///r{number}"}
                assert heard["capabilities"] == {"roots": {}}


async def test_what_a_server_still_asks_after_a_call_that_was_given_up_reaches_nobody_else(lite: Served) -> None:
    async with asking(lite, "stdio", call_timeout_ms=300) as (_, made):
        first = await Legacy.open(lite, one(made), answering(""), {"elicitation": {}})
        found = await first.call("ask", {"end": "hang"})
        assert found["error"]["data"]["code"] == "UPSTREAM_TIMEOUT"
        second = await Legacy.open(lite, one(made), answering(""), {"elicitation": {}})
        heard: Any = json.loads((await second.call("report", {}))["result"]["content"][0]["text"])
        assert heard["cancelled"] == [], "another connection than the one that may still speak of the first call"


async def test_a_question_without_a_call_is_refused(lite: Served) -> None:
    async with asking(lite, "stdio") as (_, made):
        someone = await Legacy.open(lite, one(made), answering(""), {"elicitation": {}})
        await someone.call("ask", {"end": "late"})
        heard: list[Any] = []
        with anyio.fail_after(5):
            while not heard:
                heard = json.loads((await someone.call("report", {}))["result"]["content"][0]["text"])["answers"]
        assert (heard[0]["id"], heard[0]["error"]["code"]) == ("late", -32601)
        assert someone.asked == []
