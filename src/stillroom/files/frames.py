"""Read tables and arrays of our own that a copy, a stop or a disk may have damaged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stillroom.errors import UsageError
from stillroom.files.digests import require_whole

if TYPE_CHECKING:
    import numpy as np
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


def read_arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name: those that are named, which must be there, or all.

    Raises:
        UsageError: it cannot be read, or lacks one.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names or file.files}
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # zipfile, zlib and numpy each have errors of their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UsageError(f"{path} is damaged ({reason}): put back a copy of it, or make the run again.") from None
