"""Times as a sketch that can be merged: a t-digest of at most 100 centroids, some 1.7 kB however many values are in it."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastdigest import TDigest

CENTROIDS = 100
# Merged in one go; who runs beside it waits for no more than that.
_AT_ONCE = 256


def merged(stored: bytes | None, durations_us: Sequence[int]) -> bytes | None:
    """The stored sketch with further times in it; None of none at all."""
    if not durations_us:
        return stored
    return _merge([stored] if stored is not None else [], durations_us).to_bytes()


def together(stored: Sequence[bytes]) -> bytes | None:
    """Several sketches as one; None of none."""
    return _merge(stored, ()).to_bytes() if stored else None


def percentiles(stored: Sequence[bytes], durations_us: Sequence[int], percents: Iterable[int]) -> list[float | None]:
    """Percentiles, in microseconds, of everything in the sketches and of the times by themselves; None of nothing."""
    if not stored and not durations_us:
        return [None for _ in percents]
    digest = _merge(stored, durations_us)
    return [digest.quantile(percent / 100) for percent in percents]


def _merge(stored: Sequence[bytes], durations_us: Sequence[int]) -> "TDigest":
    # Loaded by the first call that is counted: an idle hub does without it.
    from fastdigest import TDigest, merge_all

    digests = [TDigest.from_values(durations_us, max_centroids=CENTROIDS)] if durations_us else []
    for begin in range(0, len(stored), _AT_ONCE):
        digests += [TDigest.from_bytes(one) for one in stored[begin : begin + _AT_ONCE]]
        digests = digests if len(digests) == 1 else [merge_all(digests, max_centroids=CENTROIDS)]
    return digests[0]
