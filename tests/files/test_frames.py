"""Tables of our own, whole and damaged."""

import numpy as np
import pandas as pd
import pytest

from stillroom.errors import UsageError
from stillroom.files.frames import read_frame


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
