"""Secrets of the configuration stay out of texts."""

from hypothesis import given
from hypothesis import strategies as st

from plughub.upstream.redact import SHORTEST, Redactor
from plughub.upstream.target import Target


def test_values_of_env_headers_and_url_are_hidden_and_short_ones_are_not() -> None:
    target = Target(
        "id", "space", "org", "slug", "STDIO", 1,
        env={"KEY": "abcdefgh1", "LONGER": "abcdefgh1-more", "DEBUG": "1"},
        url="https://me:passw0rd1@a.test/?token=tok%2Den%2D12345",
        headers={"Authorization": "Bearer bearer-secret"},
    )  # fmt: skip
    redact = Redactor(target)
    assert redact("1 abcdefgh1-more abcdefgh1 bearer-secret passw0rd1 tok-en-12345") == "1 *** *** *** *** ***"
    assert redact("nothing here") == "nothing here"


def test_a_broken_url_is_hidden_whole() -> None:
    assert Redactor(Target("id", "s", "o", "x", "STREAMABLE_HTTP", 1, url="http://[secret-part"))("at http://[secret-part") == "at ***"


def redactor(*secrets: str) -> Redactor:
    return Redactor(Target("id", "s", "o", "x", "STDIO", 1, secret_args=secrets))


@given(st.lists(st.text("Sé", min_size=SHORTEST, max_size=12), min_size=1, max_size=3), st.integers(0, 60), st.data())
def test_nothing_of_a_secret_is_left_at_a_cut(secrets: list[str], most: int, data: st.DataObject) -> None:
    """Whatever stands before: what was replaced makes the text shorter, and nothing slips in for it."""
    parts = data.draw(st.lists(st.sampled_from([*secrets, "x", "y" * 9]), max_size=12))
    text = "-".join(parts).encode()
    shown = redactor(*secrets).head(text, most)
    assert "S" not in shown and "é" not in shown


def test_a_cut_text_without_secrets_is_its_beginning() -> None:
    assert redactor("secret-value").head("aé€x".encode(), 3) == "aé"
    assert redactor("secret-value").head(b"abc", 10) == "abc"
    assert redactor("secret-value")("key=secret-value!", 4) == "key="
    assert redactor("secret-value")("key=secret-value!", 5) == "key=***"
    assert Redactor(Target("id", "s", "o", "x", "STDIO", 1)).head(b"abc", 2) == "ab"


def test_secrets_that_overlap_are_hidden_together() -> None:
    assert redactor("abcdefgh-1", "gh-1-ijklm")("=abcdefgh-1-ijklm=") == "=***="
    assert redactor("abababab")("abababababab") == "***"


def test_a_secret_is_known_in_every_form_and_line() -> None:
    redact = redactor('a"b/c\\d é+f', "--token=long-enough", "first line\nsecond line")
    for form in ('a\\"b/c\\\\d \\u00e9+f', 'a\\"b\\/c\\\\d é+f', "a%22b%2Fc%5Cd%20%C3%A9%2Bf", "a%22b%2fc%5cd+%c3%a9%2bf", 'a"b/c\\d Ã©+f'):
        assert redact(f"<{form}>") == "<***>"
    assert redact.head('<a"b/c\\d é+f>'.encode("latin-1"), 99) == "<***>"
    assert redact("long-enough|second line") == "***|***"


def test_what_is_sent_for_userinfo_and_basic_headers_is_known() -> None:
    url = Redactor(Target("id", "s", "o", "x", "STREAMABLE_HTTP", 1, url="https://long%2Fuser:long%2Fpass@a.test/"))
    assert url("long/user long%2Fuser long%2fpass long/pass bG9uZy91c2VyOmxvbmcvcGFzcw== bG9uZy91c2VyOmxvbmcvcGFzcw") == "*** " * 5 + "***"
    header = Redactor(Target("id", "s", "o", "x", "STREAMABLE_HTTP", 1, headers={"Authorization": "Basic bG9uZy91c2VyOmxvbmcvcGFzcw=="}))
    assert header("long/user, long/pass, bG9uZy91c2VyOmxvbmcvcGFzcw==") == "***, ***, ***"
