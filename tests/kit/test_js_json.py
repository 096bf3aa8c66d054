"""Our JSON against that of Node: `JSON.stringify(JSON.parse(x))`, for many bodies in one process."""

import json
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plughub.kit.js_json import dumps
from tests.flows.packages import NODE

_ANEW = "for (const l of require('fs').readFileSync(0, 'utf8').split('\\n')) console.log(JSON.stringify(JSON.parse(l)))"
_STRINGS = st.text(st.characters(codec=None, exclude_categories=()), max_size=12)
_KEYS = st.one_of(_STRINGS, st.integers(-3, 2**33).map(str), st.sampled_from(["__proto__", "00", "4294967294", "4294967295", "1e3"]))
_NUMBERS = st.one_of(st.integers(-(2**60), 2**60), st.integers(-(10**400), 10**400), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _STRINGS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_KEYS, inner, max_size=5)),
    max_leaves=12,
)


def written_anew(texts: list[str]) -> list[str]:
    """What Node makes of each."""
    run = subprocess.run([NODE, "-e", _ANEW], input="\n".join(texts), capture_output=True, text=True, timeout=60, check=True)
    return run.stdout.removesuffix("\n").split("\n")


@pytest.mark.requirement("webhooks.body-as-javascript")
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(VALUES, min_size=120, max_size=120))
def test_a_body_is_what_javascript_would_write_of_it(values: list[Any]) -> None:
    ours = [dumps(value) for value in values]
    assert written_anew(ours) == ours
    # And what JavaScript makes of any other text of the same value.
    assert written_anew([json.dumps(value) for value in values]) == ours


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (-0.0, "0"),
        (1e21, "1e+21"),
        (123456789012345680000.0, "123456789012345680000"),
        (12345678901234567890, "12345678901234567000"),
        (1e-6, "0.000001"),
        (1.5e-7, "1.5e-7"),
        (5e-324, "5e-324"),
        (10**400, "null"),
        ({"b": 1, "2": 2, "1": 3, "a": 4, "01": 5}, '{"1":3,"2":2,"b":1,"a":4,"01":5}'),
        ("\ud800é\u2028\x7f\x01", '"\\ud800é\u2028\x7f\\u0001"'),
    ],
)
def test_numbers_keys_and_half_characters_are_written_as_javascript_writes_them(value: Any, text: str) -> None:
    assert dumps(value) == text
    assert written_anew([text]) == [text]


def test_what_json_does_not_hold_is_refused() -> None:
    with pytest.raises(TypeError):
        dumps({"a": {1, 2}})
