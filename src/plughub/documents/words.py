"""The words of a question, and the part of a passage that shows them. Pure: a question is never an expression of any index."""

import re

MAX_WORDS = 24
_WORD = re.compile(r"[^\W_]+")
_MAX_WORD = 64
_SNIPPET = 240
_BEFORE = 60
# Words that nearly every text has: they cost much and tell nothing, unless a question has no others.
_COMMON = """a about an and any are as at be been but by can could did do does for from had has have how i if in into is it its may me my
no not of on or our shall should so some such than that the their them then there these they this to was we were what when where which
who why will with would you your"""
_STOP = frozenset(_COMMON.split())


def words_of(question: str) -> list[str]:
    """Its words in small letters, each once, at most MAX_WORDS; the common ones only when there are no others."""
    found = list(dict.fromkeys(word[:_MAX_WORD] for word in _WORD.findall(question.lower())))
    telling = [word for word in found if word not in _STOP]
    return (telling or found)[:MAX_WORDS]


def snippet(text: str, words: list[str]) -> str:
    """About 240 characters of the text, from shortly before where most of the words stand close together; `…` where it is cut."""
    if len(text) <= _SNIPPET:
        return " ".join(text.split())
    begin = _densest(text, words)
    if begin > 0:
        space = text.find(" ", begin, begin + 30)
        begin = space + 1 if space > 0 else begin
    end = begin + _SNIPPET
    if end < len(text):
        space = text.rfind(" ", begin + _SNIPPET // 2, end)
        end = space if space > 0 else end
    part = " ".join(text[begin:end].split())
    return f"{'…' if begin > 0 else ''}{part}{'…' if end < len(text) else ''}"


def _densest(text: str, words: list[str]) -> int:
    """Where the window begins that has the most different words."""
    if not words:
        return 0
    # By their beginnings: the index knows that "refunds" is a form of "refund", this does not.
    stems = {word[: max(3, len(word) - 2)] for word in words}
    pattern = re.compile("|".join(r"\b" + re.escape(stem) for stem in sorted(stems, key=len, reverse=True)), re.IGNORECASE)
    places = [(found.start(), found.group().lower()) for found in pattern.finditer(text)]
    best, begin, left = 0, 0, 0
    for right in range(len(places)):
        while places[right][0] - places[left][0] > _SNIPPET - _BEFORE:
            left += 1
        count = len({word for _, word in places[left : right + 1]})
        if count > best:
            best, begin = count, places[left][0]
    return max(0, begin - _BEFORE)
