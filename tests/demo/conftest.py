"""A demo server to talk to, before and after the handshake."""

from collections.abc import Iterator

import pytest

from tests.demo.conversation import Conversation


@pytest.fixture
def fresh() -> Iterator[Conversation]:
    """A server that nobody has shaken hands with."""
    with Conversation() as conversation:
        yield conversation


@pytest.fixture
def demo(fresh: Conversation) -> Conversation:
    """A server after the handshake of 2025-11-25."""
    fresh.initialize()
    return fresh
