"""The form of a key, and what is said about one that is not right."""

import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plughub.keys import secret as form
from plughub.keys.secret import LENGTH, PREFIX_LENGTH, defect_of, generate, parse
from plughub.kit.ids import ALPHABET, base62

KINDS = st.sampled_from(["public", "secret"])
ENVIRONMENTS = st.sampled_from(["live", "test"])


@pytest.mark.requirement("keys.format")
@given(KINDS, ENVIRONMENTS)
def test_new_key_has_the_documented_form_and_says_what_it_is(kind: str, environment: str) -> None:
    secret = generate(kind, environment)  # type: ignore[arg-type]
    letters = {"public": "pk", "secret": "sk"}[kind]
    assert re.fullmatch(rf"{letters}_{environment}_ph_[0-9A-Za-z]{{38}}", secret)
    assert len(secret) == LENGTH == 49
    assert parse(secret) == (kind, environment)


@pytest.mark.requirement("keys.format")
def test_known_key_stays_a_key() -> None:
    """The checksum as it was on the first day: keys that people hold must not become invalid."""
    assert parse("pk_live_ph_" + "0" * 32 + checksum("pk_live_ph_" + "0" * 32)) == ("public", "live")
    assert checksum("pk_live_ph_" + "0" * 32) == "2qRzQE"


@pytest.mark.requirement("keys.bad-checksum-refused-unseen")
@given(st.data())
def test_key_with_one_wrong_character_is_refused(data: st.DataObject) -> None:
    secret = generate("public", "live")
    at = data.draw(st.integers(0, LENGTH - 1))
    wrong = data.draw(st.sampled_from(ALPHABET + "_-é\n"))
    if wrong != secret[at]:
        assert parse(secret[:at] + wrong + secret[at + 1 :]) is None


@given(st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    assert parse(text) is None
    defect_of(text)
    defect_of(text.encode())


def test_cut_and_lengthened_keys_are_refused() -> None:
    secret = generate("secret", "test")
    for wrong in (secret[:-1], secret + "0", secret + "\n", " " + secret, secret.swapcase(), ""):
        assert parse(wrong) is None


@pytest.mark.requirement("keys.hint-names-the-defect")
@pytest.mark.parametrize(
    ("header", "prefix", "hint"),
    [
        (None, None, form.NO_HEADER),
        ("", None, form.NO_HEADER),
        ("Bearer", None, form.NO_KEY),
        ("Bearer   ", None, form.NO_KEY),
        ('Bearer ""', None, form.NO_KEY),
        ("{key}", "pk_live_", form.NO_BEARER),
        ("Basic dXNlcjpwYXNz", None, form.NO_BEARER),
        ('Bearer "{key}"', "pk_live_", form.QUOTES),
        ("Bearer '{key}'", "pk_live_", form.QUOTES),
        ("Bearer  {key}", "pk_live_", form.SPACES),
        ("Bearer {key} x", "pk_live_", form.SPACES),
        ("Bearer {cut}", "pk_live_", form.INCOMPLETE),
        ("ApiKey {cut}", "pk_live_", form.INCOMPLETE),
        ("Bearer sk_test_abc123", "sk_test_", form.INCOMPLETE),
        ("Bearer eyJhbGciOi", None, form.NOT_A_KEY),
    ],
)
def test_hint_names_the_defect_of_the_header(header: str | None, prefix: str | None, hint: str) -> None:
    key = generate("public", "live")
    text = None if header is None else header.format(key=key, cut=key[:-3])
    for given_as in (text, None if text is None else text.encode()):
        assert defect_of(given_as) == (prefix, hint)
    assert key[PREFIX_LENGTH:] not in hint


def checksum(body: str) -> str:
    return base62(zlib.crc32(body.encode()), 6)
