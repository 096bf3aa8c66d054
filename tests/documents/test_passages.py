"""Texts as passages, and the words of questions: pure."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from plughub.documents.chunks import MAX_CHUNKS, MOST, split
from plughub.documents.words import MAX_WORDS, snippet, words_of


def test_headings_are_a_path_and_paragraphs_stay_together() -> None:
    text = "Before.\n\n# A\n\nOne.\nStill one.\n\nTwo.\n\n## B ##\n\nThree.\n\n```\n# no heading\n```\n\n# C\n\nFour."
    assert [(chunk.heading, chunk.text) for chunk in split(text)] == [
        ("", "Before."),
        ("A", "One.\nStill one.\n\nTwo."),
        ("A › B", "Three.\n\n```\n# no heading\n```"),
        ("C", "Four."),
    ]


def test_what_goes_on_begins_with_the_end_of_what_was_before() -> None:
    text = " ".join(f"This is sentence number {n} of a long paragraph." for n in range(100))
    chunks = [chunk.text for chunk in split(text)]
    assert len(chunks) > 4 and all(len(chunk) <= MOST for chunk in chunks)
    for before, after in itertools.pairwise(chunks):
        assert before.endswith(after.partition("\n\n")[0])
    for n in range(100):
        assert any(f"number {n} of" in chunk for chunk in chunks)


def test_a_text_without_a_space_or_an_end_is_cut_and_bounded() -> None:
    assert all(len(chunk.text) <= MOST for chunk in split("x" * 50_000))
    assert "".join(chunk.text for chunk in split("x" * 5_000)) == "x" * 5_000
    assert len(split("# h\n\nword\n\n" * (MAX_CHUNKS + 10))) == MAX_CHUNKS


@given(st.text(alphabet="ab .#\n`!é", max_size=3_000))
def test_nothing_is_too_long_and_no_word_is_lost(text: str) -> None:
    chunks = split(text)
    assert all(chunk.text and len(chunk.text) <= MOST for chunk in chunks)
    kept = {word for chunk in chunks for word in f"{chunk.heading} {chunk.text}".split()}
    if not any(len(word) > 100 for word in text.split()) and len(text) < 1_000:
        assert {word for word in text.split() if "#" not in word} <= kept | {
            part for word in kept for part in word.split("#")
        } or "#" in text


def test_the_words_of_a_question_are_those_that_tell_something() -> None:
    assert words_of("When are the REFUNDS paid, and refunds of what?") == ["refunds", "paid"]
    assert words_of("who is it") == ["who", "is", "it"]
    assert words_of('"(NEAR* a:b_c') == ["near", "b", "c"]
    assert words_of("?!") == [] and len(words_of(" ".join(f"w{n}" for n in range(100)))) == MAX_WORDS


def test_a_snippet_shows_where_the_words_stand() -> None:
    text = "Nothing here. " * 50 + "The refund is paid within thirty days of the order. " + "Nothing there. " * 50
    shown = snippet(text, ["refunds", "thirty"])
    assert "refund is paid within thirty" in shown and shown[0] == shown[-1] == "…" and len(shown) <= 242
    assert snippet("short  text", ["x"]) == "short text"
    assert snippet(text, []).startswith("Nothing here.")
