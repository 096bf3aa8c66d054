"""Identifiers inside and outside."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plughub.kit.ids import REQUEST_STEP_S, RequestIds, base62, new_id, parse_public_id, parse_uuid, public_id, request_time
from tests.conftest import FakeClock

SOME = "01a201ed-db7c-7002-86b5-0da8d9de611b"


@pytest.mark.requirement("http.ids")
@given(st.uuids())
def test_a_public_id_leads_back_to_its_uuid(id_: uuid.UUID) -> None:
    public = public_id("mcp", str(id_))
    assert len(public) == 26 and public.startswith("mcp_")
    assert parse_public_id("mcp", public) == parse_public_id("mcp", str(id_)) == str(id_)
    assert parse_public_id("key", public) is None


@pytest.mark.requirement("http.ids")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "mcp_",
        "mcp_123",
        "mcp_" + "z" * 22,
        "mcp_" + "0" * 21,
        "mcp_" + "0" * 23,
        "mcp_" + "0" * 21 + "-",
        "MCP_" + "0" * 22,
        "x" * 36,
        SOME.replace("-", ""),
        "{" + SOME + "}",
        SOME[:-1],
        SOME + "0",
        SOME.replace("7", "_", 1),
        SOME.replace("0", "٠"),
        "{01a201eddb7c700286b50da8d9de611b}--",
        "01a2-01ed-db7c-7002-86b50da8d9de611b",
        " " + SOME[1:],
        SOME[:-1] + "g",
        "urn:uuid:" + SOME[9:],
    ],
)
def test_what_is_no_id_is_none(text: str) -> None:
    assert parse_public_id("mcp", text) is None


@given(st.text(max_size=40))
def test_any_text_is_an_id_or_none(text: str) -> None:
    assert parse_public_id("mcp", text) is None or parse_uuid(text) is not None or text.startswith("mcp_")


def test_a_uuid_may_be_written_in_capitals() -> None:
    assert parse_uuid(SOME.upper()) == SOME


def test_new_ids_are_unique_and_sort_by_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(set(ids))


@pytest.mark.requirement("http.request-id", "logs.found-by-id")
def test_request_ids_are_unique_and_tell_when_the_request_came(clock: FakeClock) -> None:
    one, other, seen = RequestIds(clock), RequestIds(clock), set()
    for moved in (0, 0.01, 0.04, 5, -3, 86_400, 4e8):
        clock.advance(moved)
        for _ in range(100):
            made = {one.new(), other.new()}
            assert all(0 <= clock.time() - (request_time(id_) or 0) <= REQUEST_STEP_S for id_ in made)
            seen |= made
    assert len(seen) == 1400 and all(len(id_) == 26 for id_ in seen)


@pytest.mark.parametrize(
    "text", ["", "req_", "req_" + "0" * 21, "req_" + "0" * 23, "req_" + "A" * 22, "evt_" + "0" * 22, "req_" + "0" * 21 + "\n"]
)
def test_what_is_no_request_id_has_no_time(text: str) -> None:
    assert request_time(text) is None


def test_base62_is_padded() -> None:
    assert (base62(0, 3), base62(61, 1), base62(62, 3)) == ("000", "z", "010")
