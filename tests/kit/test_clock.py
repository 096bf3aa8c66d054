"""Times as they are written."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from plughub.kit.clock import parse_rfc3339, rfc3339


@given(st.floats(0, 4_102_444_800))
def test_a_time_is_written_as_the_standard_library_writes_it(epoch_s: float) -> None:
    wanted = datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert rfc3339(epoch_s) == wanted
    read = parse_rfc3339(wanted)
    assert read is not None and abs(read - epoch_s) < 0.0011


def test_what_is_nearly_the_next_second_is_the_next_second() -> None:
    assert rfc3339(1.9999999) == "1970-01-01T00:00:02.000Z"
