"""How a run's networks bear corrupted test images: in the run itself, or afterwards on a finished one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from stillroom.evaluation.robustness import PASSES, robustness
from stillroom.files import write_json
from stillroom.inference import evaluating
from stillroom.progress import progress
from stillroom.run import Run

if TYPE_CHECKING:
    from stillroom.workbench import Workbench

_MOST_IMAGES = 2000  # each is asked about 81 times by every network

_ROLES = ("student", "control", "teacher")


def measure(bench: Workbench, networks: Mapping[str, nn.Module], temperatures: Mapping[str, float]) -> dict[str, Any]:
    """The part ``robustness`` of metrics.json, on the test split.

    Args:
        bench: the run.
        networks: by role; student, control and teacher are tested.
        temperatures: by role, as fitted on clean validation images.
    """
    table, settings = bench.dataset.table, bench.settings
    every = table.indices("test")
    test = np.sort(np.random.default_rng(0).permutation(every)[:_MOST_IMAGES])
    tested = {role: networks[role] for role in _ROLES if role in networks}

    def ask(network: nn.Module, images: Tensor) -> np.ndarray:
        with evaluating(network):
            return network(images).float().cpu().numpy()

    asks: dict[str, Callable[[Tensor], np.ndarray]] = {role: partial(ask, network) for role, network in tested.items()}
    with progress("corrupt", PASSES * len(test), enabled=bench.show_progress) as advance:
        found = robustness(
            bench.task,
            asks,
            temperatures,
            bench.data.images.batch,
            test,
            table.targets[test],
            patients=None if table.patients is None else table.patients[test],
            resamples=settings.evaluation.resamples,
            seed=settings.seed,
            reference=next((role for role in ("control", "teacher") if role in tested), None),
            data_name=table.name,
            advance=advance,
        )
    if len(test) < len(every):
        found["notes"].append(f"Of the {len(every)} test images a random sample of {len(test)} was corrupted.")
    if "teacher" in tested:
        found["notes"] += bench.side_notes()
    return found


def evaluate_corruptions(run: Run, *, show_progress: bool = True) -> dict[str, Any]:
    """Test a finished run's student, control and teacher on corrupted test images; metrics.json and the report gain it.

    Raises:
        UsageError: the run has not finished, or a frozen teacher's weights are not there any more.
        RunError: the data changed since.
    """
    from stillroom.pipeline import reopen, write_pages

    bench, networks = reopen(run, show_progress=show_progress)
    metrics = run.metrics
    temperatures = {role: found["temperature"] for role, found in metrics["calibration"].items()}
    found = measure(bench, networks, temperatures)
    write_json(run.path / "metrics.json", metrics | {"robustness": found})
    write_pages(run)
    return found
