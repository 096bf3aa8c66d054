"""What is shown of a configuration, how a change is merged in, and slugs."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plughub.kit.errors import Invalid
from plughub.servers.config import MASK, SLUG_LENGTH, masked, masked_url, merge, require_secrets_anew, slugify, unmasked

names = st.text(st.characters(codec="ascii", exclude_characters="&=#?@/ \0\r\n\t[]"), min_size=1, max_size=8)
secrets = names.filter(lambda value: value != MASK)
urls = st.builds(
    lambda user, host, path, query: f"http://{user + '@' if user else ''}{host}/{path}{'?' + query if query else ''}",
    st.one_of(
        st.just(""), st.builds("{}:{}".format, st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.from_regex(r"[a-z]{1,5}", fullmatch=True))
    ),
    st.sampled_from(["h", "example.com:8080", "[::1]:1"]),
    st.sampled_from(["", "mcp", "a/b"]),
    st.lists(
        st.one_of(st.from_regex(r"[a-z]{1,3}=[A-Z]{0,5}", fullmatch=True), st.from_regex(r"[A-Z]{1,5}", fullmatch=True)), max_size=4
    ).map("&".join),
)
stdio = st.fixed_dictionaries(
    {
        "command": names,
        "args": st.lists(names, max_size=3),
        "env": st.dictionaries(names, secrets, max_size=4),
        "secret_args": st.lists(secrets, max_size=3),
    }
)
http = st.fixed_dictionaries({"url": urls, "headers": st.dictionaries(names, secrets, max_size=4)})
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.requirement("servers.secrets-come-back-masked")
def test_every_secret_comes_back_masked_and_nothing_else_changes() -> None:
    assert masked({"command": "npx", "args": ["-y", "x"], "env": {"A": "1", "B": ""}, "secret_args": ["s", "t"]}) == {
        "command": "npx",
        "args": ["-y", "x"],
        "env": {"A": "***", "B": "***"},
        "secret_args": ["***", "***"],
    }
    assert masked({"url": "https://u:p@h:1/p?a=b&c&a=&d=e=f", "headers": {"Authorization": "Bearer x"}}) == {
        "url": "https://***@h:1/p?a=***&***&a=***&d=***",
        "headers": {"Authorization": "***"},
    }
    for plain in ("http://h", "http://h/p", "https://[::1]:80/p/"):
        assert masked_url(plain) == plain


@pytest.mark.requirement("servers.masked-value-keeps-the-secret")
@given(st.one_of(stdio, http))
def test_what_was_shown_sent_back_changes_nothing(config: dict[str, object]) -> None:
    assert unmasked(merge(config, masked(config)), config) == config


@pytest.mark.requirement("servers.secrets-come-back-masked")
@given(st.one_of(stdio, http))
def test_two_configurations_that_differ_in_secrets_alone_look_the_same(config: dict[str, object]) -> None:
    shown = masked(config)
    assert masked(shown) == shown
    if "env" in config:
        env = config["env"]
        assert isinstance(env, dict)
        assert masked({**config, "env": dict.fromkeys(env, "other")}) == shown


@pytest.mark.requirement("servers.masked-value-keeps-the-secret")
def test_masked_values_keep_their_secrets_beside_new_ones() -> None:
    stored = {"url": "https://u:p@h/?a=1&b=2&a=3&X", "headers": {"K": "old", "L": "left"}}
    sent = {"url": "https://***@h/new?a=***&a=***&b=new&***", "headers": {"K": "***", "N": "new"}}
    assert unmasked(sent, stored) == {"url": "https://u:p@h/new?a=1&a=3&b=new&X", "headers": {"K": "old", "N": "new"}}
    assert unmasked({"secret_args": ["new", "***"]}, {"secret_args": ["a", "b"]}) == {"secret_args": ["new", "b"]}
    assert unmasked({"command": "echo", "args": ["***"]}, {}) == {"command": "echo", "args": ["***"]}


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"env": {"A": "***"}}, "config.env.A"),
        ({"headers": {"B": "***"}}, "config.headers.B"),
        ({"secret_args": ["x", "***"]}, "config.secret_args[1]"),
        ({"url": "http://***@h"}, "config.url"),
        ({"url": "http://h?a=***"}, "config.url"),
        ({"url": "http://h?a=1&***"}, "config.url"),
    ],
)
def test_mask_without_a_stored_secret_is_refused_and_named(config: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as raised:
        unmasked(config, {"env": {"Z": "1"}, "secret_args": ["only"], "url": "http://h?b=1"})
    assert raised.value.details["field"] == field


def refused(stored: dict[str, object], patch: dict[str, object]) -> set[str]:
    """The fields that a change of the configuration is refused for."""
    try:
        require_secrets_anew(stored, merge(stored, patch), patch)
    except Invalid as error:
        return {problem["field"] for problem in error.errors}
    return set()


STORED_HTTP = {"url": "https://u:p@h/mcp?key=k", "headers": {"A": "canary", "B": "canary"}}
STORED_STDIO = {"command": "npx", "args": ["-y"], "env": {"A": "canary"}, "secret_args": ["canary"]}


@pytest.mark.requirement("servers.secrets-stay-with-their-address")
@pytest.mark.parametrize(
    ("patch", "fields"),
    [
        ({"url": "https://evil/mcp"}, {"config.headers"}),
        ({"url": "http://h/mcp"}, {"config.headers"}),
        ({"url": "https://h:444/mcp"}, {"config.headers"}),
        ({"url": "https://h.evil/mcp", "headers": {}}, {"config.headers"}),
        ({"url": "https://evil/mcp", "headers": {"A": "new"}}, {"config.headers"}),
        ({"url": "https://evil/mcp", "headers": {"A": "new", "B": MASK}}, {"config.headers"}),
        ({"url": "https://evil/mcp", "headers": {"A": "new", "B": None}}, set()),
        ({"url": "https://evil/mcp", "headers": {"A": "new", "B": "canary"}}, set()),
        ({"url": "https://evil/mcp", "headers": None}, set()),
        ({"url": "https://***@evil/mcp", "headers": None}, {"config.url"}),
        ({"url": "https://evil/mcp?key=***", "headers": None}, {"config.url"}),
        ({"url": "https://evil/mcp?***"}, {"config.url", "config.headers"}),
        ({"url": "https://n:m@evil/mcp?key=new", "headers": None}, set()),
        ({"url": "https://***@H:443/other?key=***"}, set()),
        ({"url": "https://h/other", "headers": {"A": MASK}}, set()),
        ({"headers": {"C": "new"}}, set()),
    ],
    ids=lambda given: str(sorted(given)),
)
def test_secrets_do_not_follow_to_another_address(patch: dict[str, object], fields: set[str]) -> None:
    assert refused(STORED_HTTP, patch) == fields


@pytest.mark.requirement("servers.secrets-stay-with-their-address")
@pytest.mark.parametrize(
    ("patch", "fields"),
    [
        ({"command": "sh"}, {"config.env", "config.secret_args"}),
        ({"command": "sh", "env": {"A": MASK}, "secret_args": [MASK]}, {"config.env", "config.secret_args"}),
        ({"command": "sh", "env": {"A": "new"}, "secret_args": ["new", MASK]}, {"config.secret_args"}),
        ({"command": "sh", "env": {"A": None}, "secret_args": None}, set()),
        ({"command": "sh", "env": None, "secret_args": []}, set()),
        ({"command": "sh", "env": {"A": "new"}, "secret_args": ["canary"]}, set()),
        ({"command": "npx", "env": {"A": MASK}}, set()),
        ({"args": ["-q"]}, set()),
    ],
    ids=lambda given: str(sorted(given)),
)
def test_secrets_do_not_follow_to_another_command(patch: dict[str, object], fields: set[str]) -> None:
    assert refused(STORED_STDIO, patch) == fields


secret_patches = st.fixed_dictionaries(
    {},
    optional={
        "url": urls | st.sampled_from(["https://evil/?a=***&***", "http://***@h/", "http://h/"]),
        "command": st.sampled_from(["sh", "npx"]),
        "headers": st.none() | st.dictionaries(names, st.none() | st.just(MASK) | st.just("new"), max_size=3),
        "env": st.none() | st.dictionaries(names, st.none() | st.just(MASK) | st.just("new"), max_size=3),
        "secret_args": st.none() | st.lists(st.just(MASK) | st.just("new"), max_size=3),
    },
)


@pytest.mark.requirement("servers.secrets-stay-with-their-address")
@given(st.dictionaries(names, st.just("canary"), max_size=3), st.lists(st.just("canary"), max_size=2), secret_patches, st.booleans())
def test_no_stored_secret_is_found_at_an_address_that_it_was_not_given_for(
    values: dict[str, str], arguments: list[str], patch: dict[str, object], local: bool
) -> None:
    if local:
        stored: dict[str, object] = {"command": "python", "env": values, "secret_args": arguments}
        patch = {"command": "sh", **patch}
    else:
        stored = {"url": "https://canary:canary@stored/?a=canary&canary", "headers": values}
        patch = {"url": "https://elsewhere/", **patch}
    merged = merge(stored, patch)
    try:
        require_secrets_anew(stored, merged, patch)
        kept = unmasked(merged, stored)
    except Invalid:
        return
    assert "canary" not in repr(kept)


RFC_7386 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.requirement("servers.merge-patch")
@pytest.mark.parametrize(("current", "patch", "expected"), RFC_7386)
def test_merge_is_that_of_the_rfcs_appendix(current: object, patch: object, expected: object) -> None:
    assert merge(current, patch) == expected


@pytest.mark.requirement("servers.merge-patch")
@given(json_values, json_values)
def test_merging_twice_is_merging_once_and_leaves_both_sides_alone(current: object, patch: object) -> None:
    before = repr((current, patch))
    once = merge(current, patch)
    assert merge(once, patch) == once
    assert repr((current, patch)) == before


@pytest.mark.requirement("servers.slug")
@given(st.text(max_size=60), st.integers(0, 15))
def test_slug_has_its_form_and_is_free(name: str, same: int) -> None:
    taken: set[str] = set()
    for _ in range(same + 1):
        slug = slugify(name, taken)
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug)
        assert len(slug) <= SLUG_LENGTH
        assert slug not in taken
        taken.add(slug)


@pytest.mark.requirement("servers.slug")
@pytest.mark.parametrize(
    ("name", "taken", "slug"),
    [
        ("Weather Server", [], "weather-server"),
        ("Weather Server", ["weather-server"], "weather-server-2"),
        ("Weather Server", ["weather-server", "weather-server-2"], "weather-server-3"),
        ("  Über__Größe!! ", [], "uber-groe"),
        ("天気", [], "server"),
        ("天気", ["server"], "server-2"),
        ("a" * 30, [], "a" * 24),
        ("a" * 30, ["a" * 24], "a" * 22 + "-2"),
        ("abcdefghijklmnopqrstuv xyz", [], "abcdefghijklmnopqrstuv-x"),
        ("abcdefghijklmnopqrstuvw xyz", [], "abcdefghijklmnopqrstuvw"),
    ],
)
def test_slug_of_a_name(name: str, taken: list[str], slug: str) -> None:
    assert slugify(name, taken) == slug
