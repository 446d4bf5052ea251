"""A Parquet file's cells as text."""

import pandas as pd
import pytest

from stillroom.data.sources.manifest import read_manifest
from stillroom.data.sources.sheet import read_sheet
from stillroom.errors import UsageError
from stillroom.settings.sections import DataSettings


def test_text_that_parquet_keeps_as_bytes_is_read(tmp_path):
    pd.DataFrame({"path": ["\u00e4.png".encode(), b"b.png"], "label": [b"x", b"y"]}).to_parquet(tmp_path / "t.parquet")
    assert read_sheet(tmp_path / "t.parquet").rows == (("\u00e4.png", "x"), ("b.png", "y"))


def test_bytes_that_are_no_text_are_refused_as_paths_by_their_column(tmp_path):
    pd.DataFrame({"image": [b"\x89PNG\xff"] * 2, "label": ["x", "y"]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="row 2: the column 'image' holds binary data"):
        read_manifest(tmp_path / "t.parquet", DataSettings(path_column="image"))
