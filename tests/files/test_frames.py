"""Tables of our own, whole and damaged."""

import numpy as np
import pandas as pd
import pytest

from stillroom.errors import UsageError
from stillroom.files.frames import read_arrays, read_frame


@pytest.fixture
def frame(tmp_path):
    path = tmp_path / "predictions.parquet"
    pd.DataFrame({"id": [f"{n}.png" for n in range(300)], "student:a": np.linspace(0, 1, 300)}).to_parquet(path)
    return path


def test_a_whole_table_is_read(frame):
    assert read_frame(frame)["student:a"].iloc[-1] == 1.0


def test_a_table_cut_anywhere_is_refused_by_name(frame):
    content = frame.read_bytes()
    for length in [0, 3, *range(10, len(content), 397), len(content) - 1]:
        frame.write_bytes(content[:length])
        with pytest.raises(UsageError, match=r"predictions\.parquet is damaged \(.+\): put back a copy"):
            read_frame(frame)


def test_bytes_taken_out_are_never_a_traceback(frame):
    content = frame.read_bytes()
    for start in range(4, len(content) - 60, 151):
        frame.write_bytes(content[:start] + content[start + 50 :])
        with pytest.raises(UsageError, match="is damaged"):
            read_frame(frame)


def test_arrays_are_read_whole_or_refused_in_a_line(tmp_path):
    file = tmp_path / "a.npz"
    np.savez_compressed(file, x=np.arange(1000), y=np.ones(3))
    assert read_arrays(file).keys() == {"x", "y"}
    np.testing.assert_array_equal(read_arrays(file, "x")["x"], np.arange(1000))
    whole = file.read_bytes()
    spoilt = whole[:200] + bytes(40) + whole[240:]
    for content in (b"", whole[:-30], whole[30:], spoilt, b"x" * 50):
        file.write_bytes(content)
        with pytest.raises(UsageError, match=r"a\.npz is damaged") as caught:
            read_arrays(file)
        assert "\n" not in str(caught.value)
    file.write_bytes(whole)
    with pytest.raises(UsageError, match="z is not a file"):
        read_arrays(file, "z")
