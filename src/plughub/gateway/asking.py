"""A server's `input_required`, put to a client of the handshake revisions as the requests that it knows."""

import asyncio
from dataclasses import replace

from plughub.bridge.rounds import Asked, InputRequired, answered, legacy_params, read_input_required, response_of
from plughub.kit.errors import UpstreamError, UpstreamTimeout
from plughub.protocol.facts import QUESTIONS, RawJson, lacking
from plughub.upstream.target import ANSWER_S, Answer, Ask, Peer, Question, Upstream

MAX_ROUNDS = 8


async def answer_of(upstream: Upstream, ask: Ask, peer: Peer) -> Answer:
    """The answer of a 2026-07-28 server; what it asks on the way is put to a client that can be asked directly.

    Raises what asking raises, UpstreamError when the client cannot or does not answer, UpstreamTimeout when it takes too long.
    """
    for left in range(MAX_ROUNDS, -1, -1):
        answer = await upstream.request(ask)
        question = None if peer.modern or answer.result is None else peer.ask
        needed = None if question is None or answer.result is None else read_input_required(answer.result)
        if needed is None or question is None:
            return answer
        if left:
            responses = await _responses(needed, peer, question)
            ask = replace(ask, params=answered(ask.params, responses, needed.state))
    raise UpstreamError(f"The MCP server asked for input {MAX_ROUNDS} times without coming to an end", executed="unknown")


async def _responses(needed: InputRequired, peer: Peer, question: Question) -> dict[str, RawJson]:
    for each in needed.questions.values():
        if each.method not in QUESTIONS or lacking(peer.capabilities, each.method, each.params) is not None:
            raise UpstreamError(f"The MCP server asks for {each.method[:100]}, which the client did not declare", executed="unknown")
    tasks = {key: asyncio.ensure_future(_response(each, question)) for key, each in needed.questions.items()}
    try:
        async with asyncio.timeout(ANSWER_S):
            await asyncio.gather(*tasks.values())
    except TimeoutError as error:
        raise UpstreamTimeout(f"The client did not answer within {ANSWER_S:g} s what the MCP server asked") from error
    finally:  # one that cannot be answered makes the others void
        for task in tasks.values():
            task.cancel()
        if tasks:
            await asyncio.wait(tasks.values())
    return {key: task.result() for key, task in tasks.items()}


async def _response(asked: Asked, question: Question) -> RawJson:
    return response_of(asked.method, (await question(asked.method, legacy_params(asked))).result)
