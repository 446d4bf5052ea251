"""Read a table of our own that a copy, a stop or a disk may have damaged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stillroom.errors import UsageError
from stillroom.files.digests import require_whole

if TYPE_CHECKING:
    import pandas as pd


def read_frame(path: Path) -> pd.DataFrame:
    """The rows of a .parquet file.

    Raises:
        UsageError: it is not as it was written, or cannot be read.
    """
    require_whole(path)
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except (ImportError, MemoryError, PermissionError):
        raise
    except Exception as error:  # pyarrow, thrift and the codecs each have errors of their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path} is damaged ({reason}): put back a copy of it, or make the run again.") from None
