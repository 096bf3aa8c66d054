"""The folder of an embedded hub, and the secrets in it."""

import os
import stat
from pathlib import Path

import pytest

from plughub.data_dir import DataDir, DataDirInUse, load_secrets


@pytest.mark.requirement("run.second-process-refused")
def test_the_lock_is_one_at_a_time_and_goes_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    first, second = DataDir(path), DataDir(path)
    first.open()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with pytest.raises(DataDirInUse, match=f"process {os.getpid()}"):
        second.open()
    first.close()
    first.close()
    second.open()
    second.close()


def test_secrets_are_made_once_and_kept_private(tmp_path: Path) -> None:
    file = tmp_path / "x" / "secrets.json"
    made = load_secrets(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = load_secrets(file)
    assert again.peppers == made.peppers
    assert again.sealer.open(made.sealer.seal(b"x", "a"), "a") == b"x"
    assert load_secrets(tmp_path / "other.json").peppers != made.peppers


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nope",
        "[]",
        "{}",
        '{"peppers":{},"seals":{}}',
        '{"peppers":{"1":"zz"},"seals":{"1":"00"}}',
        '{"peppers":{"x":"00"},"seals":{}}',
        '{"peppers":{"1":"' + "00" * 32 + '"},"seals":{"1":"00"}}',
        '{"peppers":5,"seals":{}}',
        '{"peppers":{"1":5},"seals":{}}',
    ],
)
def test_a_file_that_does_not_hold_them_is_named_and_left_alone(tmp_path: Path, content: str) -> None:
    file = tmp_path / "secrets.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"secrets\.json"):
        load_secrets(file)
    assert file.read_text() == content
