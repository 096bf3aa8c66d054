"""Answers that are streamed: how they end when the client has left."""

import asyncio
import gc
from typing import Any

import pytest
from starlette.types import Message

from plughub.door.request import ClientGone, Request
from plughub.door.stream import streamed
from plughub.gateway.streams import Feed, OpenStreams
from plughub.kit.errors import UpstreamTimeout

pytestmark = pytest.mark.anyio


async def test_what_a_call_comes_to_after_its_client_left_is_no_unheard_error() -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def leave() -> Message:
        return {"type": "http.disconnect"}

    async def call() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise UpstreamTimeout from None

    async def send(_: Message) -> None:
        raise AssertionError("nobody is there")

    request = Request({"type": "http", "headers": []}, leave, send, "req_1")
    with pytest.raises(ClientGone):
        await streamed(request, Feed("key", OpenStreams()), call(), cancel_on_disconnect=True)
    gc.collect()
    assert reported == []
