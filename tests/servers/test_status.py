"""The board of live states."""

import pytest

from plughub.db.unit_of_work import Event
from plughub.servers.status import ServerState, StatusBoard
from tests.conftest import START_AT, FakeClock

pytestmark = pytest.mark.anyio


@pytest.mark.requirement("servers.live-status")
def test_state_follows_the_reports_and_the_last_error_stays_until_the_server_is_connected(clock: FakeClock) -> None:
    board = StatusBoard(clock, 10)
    assert board.get("a") == ServerState("disconnected", None, None, None)
    assert board.report("a", "error", "command not found: foo")
    assert not board.report("a", "error", "command not found: foo")
    assert not board.report("a", "connecting")
    assert board.get("a") == ServerState("connecting", "command not found: foo", None, START_AT)
    assert not board.report("a", "error", "command not found: foo"), "it failed as before"
    assert not board.report("a", "connecting")
    board.count_tools("a", 3)
    clock.advance(1)
    assert board.report("a", "connected")
    assert board.get("a") == ServerState("connected", None, 3, START_AT + 1)
    assert board.report("a", "disconnected")
    assert board.get("a").last_error is None


async def test_deleted_server_is_forgotten_and_the_board_is_bounded(clock: FakeClock) -> None:
    board = StatusBoard(clock, 3)
    for server_id in "abcd":
        board.report(server_id, "connected")
    assert [board.get(server_id).status for server_id in "abcd"] == ["disconnected", "connected", "connected", "connected"]
    await board.follow([Event("s", 1, "server.deleted", 0.0, 1, "b", None, {})])
    assert board.get("b") == ServerState()
