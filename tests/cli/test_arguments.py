"""What a user types after a tool's name."""

from typing import Any

import pytest

from plughub.cli.arguments import typed_arguments, whole_arguments
from plughub.cli.exits import ExitCode, Failure
from plughub.cli.files import parse_commented
from plughub.cli.screen import clean
from plughub.cli.servers import pairs

SCHEMA = {
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "deep": {"type": ["object", "null"]},
        "either": {"type": ["string", "integer"]},
        "unit": {"enum": ["c", "1"]},
        "odd": True,
        "free": {},
    }
}


@pytest.mark.requirement("cli.call")
@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("text=5", "5"),
        ("text=a=b", "a=b"),
        ("text=", ""),
        ("count=5", 5),
        ('deep={"a":1}', {"a": 1}),
        ("deep=null", None),
        ("either=5", "5"),
        ("unit=1", "1"),
        ("free=5", 5),
        ("free=five", "five"),
        ("odd=true", True),
        ("text:=5", 5),
        ('text:="x"', "x"),
    ],
)
def test_a_word_becomes_what_the_schema_says(word: str, value: Any) -> None:
    name = word.split("=")[0].rstrip(":")
    assert typed_arguments([word], SCHEMA) == {name: value}


@pytest.mark.requirement("cli.exit-codes")
@pytest.mark.parametrize("word", ["text", "=x", ":=5", "count=five", "count:=five"])
def test_a_word_that_is_no_argument_is_refused(word: str) -> None:
    with pytest.raises(Failure) as caught:
        typed_arguments([word], SCHEMA)
    assert caught.value.code == ExitCode.USAGE


def test_a_schema_that_says_nothing_is_no_obstacle() -> None:
    assert typed_arguments(["a=1", "b=x"], {"properties": []}) == {"a": 1, "b": "x"}


def test_whole_arguments_are_an_object() -> None:
    assert whole_arguments('{"a":[1]}', "given") == {"a": [1]}
    for text in ("[]", "5", "{", ""):
        with pytest.raises(Failure):
            whole_arguments(text, "given")


def test_pairs_are_split_at_the_first_mark() -> None:
    assert pairs("--env", ["A=b=c", "HOME"], {"HOME": "/h"}) == {"A": "b=c", "HOME": "/h"}
    assert pairs("--header", ["A: b=c", "B=d:e", "Authorization: Bearer x"]) == {"A": "b=c", "B": "d:e", "Authorization": "Bearer x"}
    for option, text, environ in (("--env", "NO", {}), ("--env", "=x", {}), ("--header", "x", None), ("--header", ": x", None)):
        with pytest.raises(Failure):
            pairs(option, [text], environ)


def test_comments_and_last_commas_of_editors_are_read() -> None:
    text = '// first\n{"servers": {"a": {"url": "http://x/*y*/", /* here */ "args": ["a,]", "//b",], },}, }'
    assert parse_commented(text) == {"servers": {"a": {"url": "http://x/*y*/", "args": ["a,]", "//b"]}}}
    with pytest.raises(ValueError):
        parse_commented("{")


def test_a_stranger_s_text_cannot_steer_the_terminal() -> None:
    assert clean("a\x1b[2Jb\x07\x9bc\td\ne") == "a\ufffd[2Jb\ufffd\ufffdc\td\ne"
