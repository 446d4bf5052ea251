"""A finished run's networks on corrupted test images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillroom.files.atomic import write_json
from stillroom.run.claims import alone_in
from stillroom.run.folder import Run


def evaluate_corruptions(run: Run, *, source: str | Path | None = None, show_progress: bool = True) -> dict[str, Any]:
    """Test a finished run's student, control and teacher on corrupted test images; metrics.json and the report gain it.

    Args:
        run: a finished run.
        source: where its images are now, if they were moved.
        show_progress: show bars.

    Raises:
        UsageError: the run has not finished, or its images or a frozen teacher's weights are not there any more.
        RunError: the data changed since; the message says which.
    """
    from stillroom.run.pipeline import reopen, write_pages
    from stillroom.run.stages.corruptions import measure

    with alone_in(run.path):
        bench, networks = reopen(run, source=source, show_progress=show_progress)
        metrics = run.metrics
        temperatures = {role: found["temperature"] for role, found in metrics["calibration"].items()}
        found = measure(bench, networks, temperatures)
        write_json(run.path / "metrics.json", metrics | {"robustness": found})
        write_pages(run)
    return found
