"""What a profile says of tools: pure functions over names and raw JSON."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plughub.kit.errors import Invalid
from plughub.profiles.overrides import MAX_TOOLS, Overrides, overridden, overrides_of


@dataclass(frozen=True, slots=True)
class Item:
    name: str
    raw: bytes


def tool(name: str, **more: Any) -> Item:
    return Item(name, json.dumps({"name": name, "description": "own", "inputSchema": {"type": "object"}, **more}).encode())


def names(items: list[Item]) -> list[str]:
    assert [json.loads(item.raw)["name"] for item in items] == [item.name for item in items]
    return [item.name for item in items]


@pytest.mark.requirement("projects.tool-settings")
def test_tools_are_switched_off_renamed_and_described_and_the_rest_passes_byte_for_byte() -> None:
    items = [tool("a"), tool("b", x=1.50), tool("c"), tool("d")]
    overrides = overrides_of({"a": {"enabled": False}, "b": {"name": "say"}, "c": {"description": 'an "other"'}})
    shown = overridden(items, overrides)
    assert names(shown) == ["say", "c", "d"]
    assert json.loads(shown[0].raw) == {"name": "say", "description": "own", "inputSchema": {"type": "object"}, "x": 1.5}
    assert json.loads(shown[1].raw)["description"] == 'an "other"'
    assert shown[2] is items[3]
    assert b"1.5" in shown[0].raw


@pytest.mark.requirement("projects.tool-settings")
def test_a_number_of_the_server_is_not_rewritten() -> None:
    item = Item("b", b'{"name":"b","x":1.50e3,"y":12345678901234567890123}')
    (shown,) = overridden([item], overrides_of({"b": {"name": "say"}}))
    assert shown.raw == b'{"name":"say","x":1.50e3,"y":12345678901234567890123}'


@pytest.mark.requirement("projects.tool-settings")
def test_a_call_finds_its_tool_by_the_name_that_the_profile_shows() -> None:
    overrides = overrides_of({"a": {"enabled": False}, "b": {"name": "say"}, "c": {"description": "d"}})
    assert overrides.own_name("say") == "b"
    assert (overrides.own_name("a"), overrides.own_name("b")) == (None, None)
    assert (overrides.own_name("c"), overrides.own_name("unknown")) == ("c", "unknown")
    assert Overrides().own_name("a") == "a"


@pytest.mark.requirement("projects.tool-settings")
def test_two_tools_may_change_names() -> None:
    overrides = overrides_of({"a": {"name": "b"}, "b": {"name": "a"}}, ["a", "b"])
    assert names(overridden([tool("a"), tool("b")], overrides)) == ["b", "a"]
    assert (overrides.own_name("a"), overrides.own_name("b")) == ("b", "a")


@pytest.mark.requirement("projects.tool-settings")
def test_a_tool_that_appears_later_does_not_take_a_name_that_was_given() -> None:
    overrides = overrides_of({"a": {"name": "say"}}, ["a"])
    assert names(overridden([tool("say"), tool("a")], overrides)) == ["say"]
    assert json.loads(overridden([tool("say", which=1), tool("a", which=2)], overrides)[0].raw)["which"] == 2
    assert overrides.own_name("say") == "a"


@pytest.mark.requirement("projects.tool-settings")
@pytest.mark.parametrize(
    ("tools", "own", "place"),
    [
        ({"a": {"name": "x"}, "b": {"name": "x"}}, (), "tools.b.name"),
        ({"a": {"name": "b"}, "b": {"description": "d"}}, (), "tools.a.name"),
        ({"a": {"name": "b"}}, ("a", "b"), "tools.a.name"),
        ({"b": {"description": "d"}, "a": {"name": "b"}}, (), "tools.a.name"),
    ],
)
def test_a_name_that_another_tool_has_is_refused_by_its_place(tools: dict[str, Any], own: tuple[str, ...], place: str) -> None:
    with pytest.raises(Invalid) as raised:
        overrides_of(tools, own)
    assert raised.value.details["field"] == place
    assert raised.value.text.startswith(f"The '{place}' field is the name of the tool '")


@pytest.mark.requirement("projects.tool-settings")
def test_the_name_of_a_tool_that_is_off_or_renamed_is_free() -> None:
    assert overrides_of({"a": {"name": "b"}, "b": {"enabled": False}}, ["a", "b"]).own_name("b") == "a"
    assert overrides_of({"a": {"name": "b"}, "b": {"name": "c"}}, ["a", "b"]).own_name("b") == "a"
    assert overrides_of({"a": {"name": "x", "enabled": False}, "b": {"name": "x"}}).own_name("x") == "b"


def test_what_says_nothing_new_is_not_kept_and_the_rest_is_bounded() -> None:
    assert overrides_of({"a": {}, "b": {"enabled": True}, "c": {"name": "c"}}).shown() == {}
    assert overrides_of({"a": {"enabled": False, "name": "n", "description": "d"}}).shown() == {
        "a": {"enabled": False, "name": "n", "description": "d"}
    }
    with pytest.raises(Invalid):
        overrides_of({f"t{number}": {"enabled": False} for number in range(MAX_TOOLS + 1)})


_LETTERS = st.sampled_from("abcde")
_SETTING = st.fixed_dictionaries({}, optional={"enabled": st.booleans(), "name": _LETTERS})


@pytest.mark.requirement("projects.tool-settings")
@given(st.dictionaries(_LETTERS, _SETTING), st.lists(_LETTERS, unique=True))
def test_shown_names_are_unique_and_lead_back_to_their_tools(tools: dict[str, Any], own: list[str]) -> None:
    try:
        overrides = overrides_of(tools)
    except Invalid:
        return
    shown = [(name, overrides.shown_name(name)) for name in own]
    seen = [name for _, name in shown if name is not None]
    assert len(seen) == len(set(seen))
    assert names(overridden([tool(name) for name in own], overrides)) == seen
    for name, said in shown:
        assert said is None or overrides.own_name(said) == name
    for name in "abcde":
        back = overrides.own_name(name)
        assert back is None or overrides.shown_name(back) == name
