"""Requests of modern clients that wait while an older server waits for their input: whose state is good for what, and how they end."""

import asyncio
import base64
import json
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from plughub.gateway import parked
from tests.fakes.asking import AskingHttp
from tests.fakes.http_servers import HttpServer
from tests.mcp.answers import one
from tests.mcp.asking_clients import FORM, ROOTS, SAMPLE, Legacy, Modern, answering, answers_in, asking, at_rest, until
from tests.serving import META, Json, Served, serving

pytestmark = pytest.mark.anyio
ASK: Json = {"rounds": [[FORM]], "mark": "m"}


async def waiting(lite: Served, path: str, arguments: Json = ASK, name: str = "ask", key: str | None = None) -> tuple[Modern, Json]:
    """A client whose request is parked, and what it was answered."""
    someone = Modern(lite, path, answering("x"), key=key)
    answer = await someone.request(name, arguments)
    result: Json = answer.json()["result"]
    assert result["resultType"] == "input_required", result
    return someone, result


async def at_peace(lite: Served) -> None:
    """What earlier tests left waiting has ended."""
    lite.clock.advance(parked.KEPT_S + 1)
    lite.app.hub.parking.sweep()
    await until(lambda: at_rest(lite))


async def refused(someone: Modern, arguments: Json = ASK, name: str = "ask", **params: object) -> None:
    answer = await someone.request(name, arguments, **params)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == -32602
    assert "params.requestState" in error["message"] and "send the request without it" in error["message"]
    assert "Your name?" not in answer.text


@pytest.mark.requirement("mcp.parked-state")
async def test_a_state_begins_with_its_node_and_differs_from_round_to_round(lite: Served) -> None:
    async with asking(lite, "legacy") as (behind, made):
        someone, first = await waiting(lite, one(made), {"rounds": [[FORM], [FORM]]})
        second = (await someone.request("ask", {"rounds": [[FORM], [FORM]]}, **someone.reply_to(first))).json()["result"]
        states = [each["requestState"] for each in (first, second)]
        session = await Legacy.open(lite, one(made), answering(""))
        assert {state.partition(".")[0] for state in states} == {session.headers["mcp-session-id"].partition("-")[0]}
        assert states[0] != states[1]
        final = (await someone.request("ask", {"rounds": [[FORM], [FORM]]}, **someone.reply_to(second))).json()["result"]
        assert len(answers_in(final)["answers"]) == 2
        assert not any("requestState" in json.dumps(each) for client in behind.clients.values() for each in client.answers)


@pytest.mark.requirement("mcp.parked-state")
async def test_a_state_that_is_not_of_this_request_is_refused_and_touches_nothing(lite: Served) -> None:
    other_key = await lite.key_of(await lite.operator())
    async with asking(lite, "legacy") as (_, made), asking(lite, "legacy") as (_, second):
        someone, first = await waiting(lite, one(made))
        reply = someone.reply_to(first)
        state = first["requestState"]
        middle = len(state) // 2
        tampered = [
            state + "-TAMPERED",
            state + "A",
            state[:-1],
            state[:20],
            state[:middle] + ("A" if state[middle] != "A" else "B") + state[middle + 1 :],
            state.partition(".")[0] + ".ph1." + base64.urlsafe_b64encode(b"x" * 90).decode(),
            state.partition(".")[0] + ".ph1.",
        ]
        for wrong in tampered:
            await refused(someone, **{**reply, "requestState": wrong})
        await refused(Modern(lite, one(made), answering("thief"), key=other_key), **reply)
        await refused(Modern(lite, one(second), answering("x")), **reply)
        await refused(Modern(lite, "/mcp", answering("x")), name=f"{made['slug']}__ask", **reply)
        await refused(someone, {**ASK, "mark": "other"}, **reply)
        await refused(someone, name="tell", **reply)
        await refused(someone, method="prompts/get", **reply)
        await refused(someone, method="completion/complete", **reply)
        legacy = await Legacy.open(lite, one(made), answering("x"))
        assert (await legacy.call("ask", ASK, **reply))["error"]["code"] == -32602
        found = (await someone.request("ask", ASK, **reply)).json()["result"]
        assert answers_in(found) == {"mark": "m", "answers": [answering("x")("elicitation/create", {})]}
        await refused(someone, **reply)
        await until(lambda: at_rest(lite))


@pytest.mark.requirement("mcp.parked-state")
async def test_answers_of_a_wrong_form_are_refused_and_the_state_stays_good(lite: Served) -> None:
    async with asking(lite, "legacy") as (_, made):
        someone, first = await waiting(lite, one(made))
        [key] = first["inputRequests"]
        for wrong in (5, [], "x", {key: 5}, {key: None}, {key: "x"}, {key: {}, "other": []}, None):
            answer = await someone.request("ask", ASK, requestState=first["requestState"], inputResponses=wrong)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32602)
            assert "inputResponses" in answer.json()["error"]["message"]
        for partly in ({}, {"wrong": {"action": "accept"}}):
            answer = await someone.request("ask", ASK, requestState=first["requestState"], inputResponses=partly)
            again = answer.json()["result"]
            assert again["inputRequests"] == first["inputRequests"], "it is asked again"
            first = again
        assert "result" in (await someone.request("ask", ASK, **someone.reply_to(first))).json()


async def test_an_earlier_rounds_state_and_a_second_sending_are_refused(lite: Served) -> None:
    arguments = {"rounds": [[FORM, SAMPLE], [ROOTS]]}
    async with asking(lite, "legacy") as (_, made):
        someone, first = await waiting(lite, one(made), arguments)
        second = (await someone.request("ask", arguments, **someone.reply_to(first))).json()["result"]
        await refused(someone, arguments, **someone.reply_to(first))
        reply = someone.reply_to(second)
        both = await asyncio.gather(*(someone.request("ask", arguments, **reply) for _ in range(2)))
        assert sorted(answer.status_code for answer in both) == [200, 400]


async def test_one_of_several_questions_may_be_answered_first(lite: Served) -> None:
    arguments = {"rounds": [[FORM, SAMPLE]]}
    async with asking(lite, "legacy") as (_, made):
        someone, first = await waiting(lite, one(made), arguments)
        one_key, other_key = first["inputRequests"]
        responses = someone.reply_to(first)["inputResponses"]
        given = {"inputResponses": {one_key: responses[one_key]}, "requestState": first["requestState"]}
        second = (await someone.request("ask", arguments, **given)).json()["result"]
        assert list(second["inputRequests"]) == [other_key]
        final = (await someone.request("ask", arguments, **someone.reply_to(second))).json()["result"]
        assert len(answers_in(final)["answers"]) == 2


async def test_answers_without_a_state_begin_the_call_anew(lite: Served) -> None:
    for kind in ("legacy", "stdio"):
        async with asking(lite, kind) as (_, made):
            someone = Modern(lite, one(made), answering("x"))
            for responses in (None, {"user_name": {"action": "accept"}}, {"user_name": 12345}, 7):
                answer = await someone.request("ask", ASK, inputResponses=responses)
                assert answer.json()["result"]["resultType"] == "input_required"
            plain = Modern(lite, one(made), answering("x"), {})
            found = (await plain.request("ask", {"mark": "m"}, inputResponses={"a": {}})).json()["result"]
            assert answers_in(found)["mark"] == "m"
            await refused(plain, requestState="what no server here gave out")


@pytest.mark.requirement("mcp.parked-state")
async def test_the_state_of_a_modern_server_passes_untouched_even_in_the_form_of_the_hubs_own(lite: Served) -> None:
    async with asking(lite, "modern") as (behind, made):
        someone = Modern(lite, one(made), answering("x"))
        first = (await someone.request("ask", ASK)).json()["result"]
        assert first["requestState"] == "server state: []"
        found = (await someone.request("ask", ASK, **someone.reply_to(first))).json()["result"]
        assert len(answers_in(found)["answers"]) == 1
        foreign = "0123abcd.ph1." + base64.urlsafe_b64encode(b"of another hub").decode()
        await someone.request("report", {}, requestState=foreign, inputResponses={})
        assert behind.modern[-1].json["params"]["requestState"] == foreign
        before = len(behind.modern)
        async with asking(lite, "legacy") as (_, old):
            own = (await waiting(lite, one(old)))[1]["requestState"]
            await refused(someone, requestState=own)
        assert len(behind.modern) == before


@pytest.mark.requirement("mcp.parked-bounded")
async def test_a_request_that_nobody_comes_back_for_ends_upstream_too(lite: Served) -> None:
    await at_peace(lite)
    async with asking(lite, "legacy") as (behind, made):
        someone, first = await waiting(lite, one(made))
        told = await lite.call("GET", "/api/rate-limit")
        assert told.json()["concurrency"]["remaining"] == told.json()["concurrency"]["limit"], "who waits for a person holds no place"
        lite.clock.advance(parked.KEPT_S - 1)
        lite.app.hub.parking.sweep()
        assert len(lite.app.hub.parking) == 1
        lite.clock.advance(2)
        await refused(someone, **someone.reply_to(first))
        lite.app.hub.parking.sweep()
        [lent] = [each for each in behind.clients.values() if each.capabilities]
        with anyio.fail_after(5):
            while not (lent.cancelled and at_rest(lite)):
                await checkpoint()


@pytest.mark.requirement("mcp.parked-bounded")
async def test_requests_that_wait_are_bounded_per_key_and_in_all(lite: Served) -> None:
    await at_peace(lite)
    async with asking(lite, "legacy") as (_, made):
        other = await lite.key_of(await lite.operator())
        parking = lite.app.hub.parking
        parking.most, parking.most_per_key = 3, 2
        answers = await asyncio.gather(*(Modern(lite, one(made), answering("")).request("ask", ASK) for _ in range(4)))
        full = [answer.json()["error"] for answer in answers if "error" in answer.json()]
        assert [error["data"]["code"] for error in full] == ["UNAVAILABLE"] * 2
        assert (await Modern(lite, one(made), answering(""), key=other).request("ask", ASK)).status_code == 200
        last = await Modern(lite, one(made), answering(""), key=other).request("ask", ASK)
        assert last.json()["error"]["code"] == 503
        assert len(lite.app.hub.parking) == 3
        lite.clock.advance(parked.KEPT_S + 1)
        lite.app.hub.parking.sweep()
        await until(lambda: at_rest(lite))
        assert not parking._per_key
        parking.most, parking.most_per_key = parked.MAX_PARKED, parked.MAX_PER_KEY


async def test_a_key_that_lost_the_server_meanwhile_does_not_get_the_answer(lite: Served) -> None:
    async with asking(lite, "legacy") as (_, made):
        key = (await lite.call("POST", "/api/auth/keys", {"name": "k"})).json()
        someone, first = await waiting(lite, "/mcp", name=f"{made['slug']}__ask", key=key["key"])
        await lite.call("PATCH", f"/api/auth/keys/{key['id']}", {"servers": []})
        answer = await someone.request(f"{made['slug']}__ask", ASK, **someone.reply_to(first))
        assert "error" in answer.json() and "Your name?" not in answer.text
        assert answer.status_code in (403, 404)


async def test_progress_has_the_token_of_the_request_that_waits_for_it(lite: Served) -> None:
    async with asking(lite, "legacy") as (_, made):
        someone = Modern(lite, one(made), answering(""))
        first = await someone.request("tell", ASK, meta={"progressToken": "one", META + "logLevel": "info"})
        assert '"progressToken":"one"' in first.text


@pytest.mark.requirement("mcp.parked-bounded", "mcp.parked-state")
async def test_the_stop_of_the_hub_ends_what_waits_and_the_next_one_knows_nothing_of_it(sqlite_template: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'own.db'}"
    (tmp_path / "own.db").write_bytes(sqlite_template.read_bytes())
    behind = AskingHttp()
    async with HttpServer(behind) as server:
        async with serving(url, tmp_path / "d") as hub:
            made = await hub.register("asking", server.url)
            someone, first = await waiting(hub, one(made))
        [lent] = [each for each in behind.clients.values() if each.capabilities]
        assert lent.cancelled, "the server was told"
        assert len(hub.app.hub.parking) == 0
        async with serving(url, tmp_path / "d", secrets=hub.secrets) as again:
            await refused(Modern(again, one(made), answering("x"), key=hub.key), **someone.reply_to(first))
