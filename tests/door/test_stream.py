"""Answers that are streamed: how they end when the client has left."""

import asyncio
import gc
from typing import Any

import pytest
from starlette.types import Message

from plughub.door.request import ClientGone, Request
from plughub.door.stream import Outlet
from plughub.gateway.streams import OpenStreams
from plughub.kit.clock import SystemClock
from plughub.kit.errors import UpstreamTimeout
from plughub.kit.waits import Waits

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

    request = Request({"type": "http", "headers": []}, leave, send, "req_1", Waits())
    with pytest.raises((ClientGone, UpstreamTimeout)):
        await Outlet(request, OpenStreams(SystemClock())).run(call(), leaving_cancels=True)
    gc.collect()
    assert reported == []
