"""The log of each server: bounded, and never the reason that a server fails."""

from pathlib import Path

import pytest

from plughub.kit.ids import new_id
from plughub.servers.logs import ServerLogs
from tests.conftest import FakeClock


def test_lines_are_kept_with_their_time(tmp_path: Path, clock: FakeClock) -> None:
    logs = ServerLogs(tmp_path / "logs", 10_000, clock)
    assert not (tmp_path / "logs").exists(), "made with the first line"
    one, other = new_id(), new_id()
    assert logs.tail(one, 5) == []
    for number in range(10):
        logs.write(one, f"line {number} \ud800")
    logs.write(other, "x" * 10_000)
    assert logs.tail(one, 2) == [f"2027-01-15T08:00:00.000Z line {number} ?" for number in (8, 9)]
    assert len(logs.tail(other, 1)[0]) < 4100
    logs.remove(one)
    assert logs.tail(one, 5) == [] and logs.tail(other, 5)
    logs.close()


@pytest.mark.requirement("bad-input.endless-stderr")
def test_a_log_is_bounded_with_one_older_part(tmp_path: Path, clock: FakeClock) -> None:
    logs = ServerLogs(tmp_path, 5000, clock)
    name = new_id()
    for number in range(2000):
        logs.write(name, f"line {number}")
        if number % 100 == 0:
            assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 2 * 5100
    assert len(list(tmp_path.iterdir())) == 2
    logs.write(name, "the last")
    assert logs.tail(name, 1)[0].endswith("the last")
    logs.remove(name)
    assert list(tmp_path.iterdir()) == []


def test_only_so_many_files_are_open(tmp_path: Path, clock: FakeClock) -> None:
    logs = ServerLogs(tmp_path, 5000, clock)
    names = [new_id() for _ in range(100)]
    for _ in range(2):
        for name in names:
            logs.write(name, "x")
    assert len(logs._files) <= 64
    assert all(len(logs.tail(name, 9)) == 2 for name in names)
    logs.close()


def test_a_disk_that_refuses_costs_the_line_alone(tmp_path: Path, clock: FakeClock) -> None:
    blocked = tmp_path / "logs"
    blocked.write_text("a file where the folder should be")
    logs = ServerLogs(blocked, 5000, clock)
    name = new_id()
    logs.write(name, "lost")
    blocked.unlink()
    logs.write(name, "kept")
    assert [line.split(" ", 1)[1] for line in logs.tail(name, 9)] == ["kept"]
    logs.close()
