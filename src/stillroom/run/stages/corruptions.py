"""How a run's networks bear corrupted test images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from stillroom.data.inference import evaluating
from stillroom.evaluation.robustness import PASSES, robustness
from stillroom.progress import progress
from stillroom.run.stage import Evidence, Stage

if TYPE_CHECKING:
    from stillroom.run.workbench import Workbench

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


def work(evidence: Evidence) -> dict[str, Any]:
    assert evidence.assessment is not None
    return {"robustness": measure(evidence.bench, evidence.networks, evidence.assessment.temperatures)}


STAGE = Stage("corrupt", work, wanted=lambda settings: settings.evaluation.corruptions)
