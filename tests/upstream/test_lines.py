"""Pipes as lines."""

from hypothesis import given
from hypothesis import strategies as st

from plughub.upstream.lines import KEPT, Lines


class Heard:
    def __init__(self, max_bytes: int) -> None:
        self.lines: list[bytes] = []
        self.long: list[tuple[bytes, bytes, int]] = []
        self.ended = 0
        self.reader = Lines(max_bytes, self.lines.append, lambda *parts: self.long.append(parts), self._end)

    def _end(self) -> None:
        self.ended += 1


@given(st.lists(st.binary(max_size=30)))
def test_the_pieces_never_matter(chunks: list[bytes]) -> None:
    heard = Heard(1000)
    for chunk in chunks:
        heard.reader.data_received(chunk)
    heard.reader.connection_lost(None)
    lines = b"".join(chunks).split(b"\n")
    assert heard.lines == (lines if lines[-1] else lines[:-1])
    assert (heard.ended, heard.long) == (1, [])


@given(st.integers(1, 5000), st.integers(0, 20_000))
def test_a_long_line_leaves_its_ends_and_its_size(piece: int, size: int) -> None:
    heard = Heard(8192)
    line = b"HEAD" + b"x" * size + b"TAIL"
    stream = b"before\n" + line + b"\nafter\n"
    for start in range(0, len(stream), piece):
        heard.reader.data_received(stream[start : start + piece])
    if len(line) <= 8192:
        assert heard.lines == [b"before", line, b"after"]
    else:
        assert heard.lines == [b"before", b"after"]
        [(head, tail, total)] = heard.long
        assert (head, total) == (line[:KEPT], len(line))
        assert tail.endswith(b"TAIL") and len(tail) <= KEPT


def test_a_line_without_an_end_keeps_memory_bounded() -> None:
    heard = Heard(8192)
    for _ in range(1000):
        heard.reader.data_received(b"y" * 65536)
    held = [getattr(heard.reader, name) for name in ("_chunks", "_head", "_tail")]
    assert sum(len(part) for part in held) <= 2 * KEPT
