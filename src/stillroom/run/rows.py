"""The rows of a run's own source, wherever its images are now, without a pixel read. No torch."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stillroom.data.load import is_named_set, open_source
from stillroom.data.table import Table
from stillroom.errors import UsageError
from stillroom.run.folder import Run
from stillroom.settings.whole import anchored


def rows_of(run: Run, known: Sequence[str], source: str | Path | None = None) -> Table:
    """The source's table as the run reads it, with the ids that the run knows.

    Args:
        run: the run.
        known: ids of its images.
        source: where the images are now. Default: where they were last.

    Raises:
        UsageError: they are not there any more.
    """
    noted = run.manifest.get("places")
    last = noted.get("source") if isinstance(noted, dict) else None
    settings = anchored(replace(run.settings, source=str(source or last or run.settings.source)))
    place = settings.source
    if not is_named_set(place) and not Path(place).expanduser().exists():
        raise UsageError(f"{place}, which {run.path} reads, is not there any more. Name its new place by --source.")
    return named_as(open_source(place, settings.student_data, seed=settings.seed), known)


def named_as(table: Table, known: Sequence[str]) -> Table:
    """The table with the ids that the run knows, where only the folder above all images is called otherwise by now.

    So it is with a table of absolute paths. Ids decide which split a row is drawn into.
    """
    ids = table.ids.tolist()
    was, now = _above(known), _above(ids)
    renamed = [was + name.removeprefix(now) for name in ids]
    better = len(set(known) & set(renamed)) > len(set(known) & set(ids))
    return replace(table, ids=np.array(renamed)) if better else table


def _above(ids: Sequence[str]) -> str:
    folder = posixpath.commonpath([posixpath.dirname(name) for name in ids])
    return f"{folder}/" if folder else ""
