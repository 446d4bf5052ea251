"""How alike two exported files of one network answer: a smaller or faster one is handed over only for what it keeps.

Accuracy alone hides what rounding does: refusals, distances and heat maps change long before decisions do. So each of them is
measured, on the same images, and each has a limit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np

from stillroom.deployment.edge_maps import edge_map
from stillroom.deployment.predictor import Predictor
from stillroom.evaluation.estimates import Estimate
from stillroom.evaluation.metrics import NAMES
from stillroom.evaluation.ood import energy
from stillroom.settings.methods import Method

LEVELS = ("none", "basic", "extended", "all")
"""ONNX Runtime's levels of graph optimisation; ``all`` is what it does unasked."""

BATCHES = (1, 16)
_TIMED = 25


@dataclass(frozen=True)
class Limits:
    """What a file must keep of another.

    Attributes:
        metric: largest loss in the task's selection metric, such as the AUC.
        agreement: least share of images that both decide alike.
        refusals: largest difference between the shares of images that are refused as foreign.
        distance: largest median relative difference between distances from the training images.
        maps: least mean correlation between heat maps.
        probability: largest mean difference between probabilities at two levels of optimisation.
    """

    metric: float = 0.005
    agreement: float = 0.97
    refusals: float = 0.01
    distance: float = 0.03
    maps: float = 0.9
    probability: float = 0.01


LIMITS = Limits()
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Answers:
    """What a file says of images: ``logits`` ``[N, K]``, ``distance`` ``[N]`` or None where it knows no foreign images."""

    logits: np.ndarray
    distance: np.ndarray | None

    @classmethod
    def of(cls, predictor: Predictor, batches: Iterator[np.ndarray]) -> Answers:
        """Ask a file about images.

        Args:
            predictor: of the file.
            batches: ``[B, C, S, S]`` float32 in [0, 1] each, at least one.
        """
        names = ["logits", *(["distance"] if predictor.foreign else [])]
        found = [predictor.ask(batch, *names) for batch in batches]
        distance = np.concatenate([part["distance"] for part in found]) if predictor.foreign else None
        return cls(np.concatenate([part["logits"] for part in found]), distance)


def decisions_alike(first: Predictor, second: Predictor, one: Answers, other: Answers) -> np.ndarray:
    """Which images two files decide alike in every class, ``[N]`` bool."""
    said = [
        file.task.one_hot(file.task.decide(file.task.probabilities(answers.logits, file.metadata.temperature)))
        for file, answers in ((first, one), (second, other))
    ]
    return np.asarray((said[0] == said[1]).all(axis=1))


def accuracy_apart(found: dict[str, float | None], agreement: Estimate) -> dict[str, float | None]:
    """The difference between two files' accuracies, where they decide all images alike bounded by what that leaves open.

    Accuracies differ by no more than the share of images that are decided otherwise.

    Args:
        found: of :func:`~stillroom.evaluation.comparison.compare`, ``value``, ``low`` and ``high``.
        agreement: share of images decided alike, with its interval.
    """
    if agreement["value"] != 1 or agreement["low"] is None:
        return found
    return {"value": 0.0, "low": agreement["low"] - 1, "high": 1 - agreement["low"]}


def distance_error(one: Answers, other: Answers) -> float | None:
    """Median relative difference of the second's distances from the first's; None where either has none."""
    if one.distance is None or other.distance is None:
        return None
    return float(np.median(np.abs(other.distance / np.maximum(one.distance, 1e-12) - 1)))


def refused(predictor: Predictor, answers: Answers) -> np.ndarray | None:
    """Which images a file refuses as foreign, ``[N]`` bool; None where it has no such rule."""
    if predictor.foreign is None or answers.distance is None:
        return None
    return predictor.foreign.foreign(energy(predictor.task, answers.logits), answers.distance)


def maps_alike(
    first: Predictor, second: Predictor, images: np.ndarray, classes: Sequence[int], method: Method
) -> list[float]:
    """Correlation over pixels of two files' heat maps, of each image whose maps are not flat.

    Args:
        images: ``[N, C, S, S]`` float32 in [0, 1].
        classes: ``[N]`` the class to explain in each.
        method: that the files draw, see :func:`~stillroom.deployment.edge_maps.edge_map`.
    """
    found = []
    for image, number in zip(images, classes, strict=True):
        maps = [edge_map(file, image, int(number), method=method).ravel() for file in (first, second)]
        if all(np.ptp(values) > 0 for values in maps):
            found.append(float(np.corrcoef(maps[0], maps[1])[0, 1]))
    return found


def timed(files: Mapping[str, Predictor], images: np.ndarray, batch: int) -> dict[str, float]:
    """Milliseconds of CPU time for an image, the median of several calls, by name of the file.

    The files take turns, and what other processes do is not counted: a ratio of a busy machine's clock says nothing.

    Args:
        files: by name, opened with one thread.
        images: ``[N, C, S, S]`` float32 in [0, 1], at least one.
        batch: how many images at once.
    """
    given = np.resize(images, (batch, *images.shape[1:]))
    spent: dict[str, list[float]] = {name: [] for name in files}
    for number in range(_TIMED + 2):
        for name, file in files.items():
            start = time.process_time()
            file.ask(given, "logits")
            if number >= 2:
                spent[name].append((time.process_time() - start) * 1000 / batch)
    return {name: float(np.median(values)) for name, values in spent.items()}


def levels_alike(at: Mapping[str, Predictor], images: np.ndarray) -> dict[str, Any]:
    """Whether a file answers alike at every level of optimisation: the worst ``agreement`` and ``probability`` of all.

    They cannot be equal to the last digit: at a low level integers are computed as float32, and a value at the middle of two
    steps then falls the other way.

    Args:
        at: the same file, opened at each of :data:`LEVELS`.
        images: ``[N, C, S, S]`` float32 in [0, 1], at least one.
    """
    answers = {level: Answers.of(file, iter([images])) for level, file in at.items()}
    usual = at["all"]
    task, temperature = usual.task, usual.metadata.temperature
    meant = task.probabilities(answers["all"].logits, temperature)
    apart = [np.abs(task.probabilities(found.logits, temperature) - meant).mean() for found in answers.values()]
    alike = [decisions_alike(usual, usual, answers["all"], found).mean() for found in answers.values()]
    return {"agreement": float(min(alike)), "probability": float(max(apart)), "images": len(images)}


def alike_enough(share: float, images: int) -> bool:
    """Whether so many images are decided alike that two files count as one. Of few images one may differ."""
    return (1 - share) * images <= max(1.0, (1 - LIMITS.agreement) * images) + _ROUNDING


def most_lost(images: int) -> float:
    """How much of the selection metric may be lost on so many test images: of few, one alone is more than the limit."""
    return max(LIMITS.metric, 1 / images)


def refusals_of(figures: Mapping[str, Any]) -> list[str]:
    """Why a file is not handed over in another's place, a sentence each; none where it may be.

    Args:
        figures: of metrics.json the part ``int8``: ``images``, ``comparison``, ``agreement``, ``refused_share``, ``levels``.
    """
    found, metric = [], figures["comparison"]["metric"]
    lost, most = -_known(figures["comparison"]["difference"]["value"]), most_lost(figures["images"])
    if lost > most + _ROUNDING:
        found.append(f"It loses {lost:.3f} in {NAMES.get(metric, metric)} (at most {most:.3f} is allowed).")
    if isnan(_known(figures["agreement"])):
        found.append("What it decides could not be compared with the float32 file.")
    elif not alike_enough(figures["agreement"], figures["images"]):
        found.append(
            f"It decides {figures['agreement']:.1%} of the images like the float32 file (at least {LIMITS.agreement:.0%})."
        )
    before, after = figures["refused_share"]
    if before is not None and abs(after - before) > max(LIMITS.refusals, 1 / figures["images"]) + _ROUNDING:
        found.append(f"It refuses {after:.1%} of the images as foreign, the float32 file {before:.1%}.")
    levels = figures["levels"]
    if isnan(_known(levels["agreement"]) + _known(levels["probability"])):
        found.append("What it answers at other levels of ONNX Runtime's optimisation could not be compared.")
    elif not alike_enough(levels["agreement"], levels["images"]) or levels["probability"] > LIMITS.probability:
        found.append(
            f"At other levels of ONNX Runtime's optimisation it decides {levels['agreement']:.1%} of the images alike, and"
            f" its probabilities differ by {levels['probability']:.3f} on average."
        )
    return found


def _known(value: float | None) -> float:
    """NaN where a figure is not defined: it is within no limit, and beyond none."""
    return float("nan") if value is None else value


def downgrades_of(figures: Mapping[str, Any]) -> list[str]:
    """What is not promised of a file that is handed over, a sentence each."""
    found, metric = [], figures["comparison"]["metric"]
    if isnan(_known(figures["comparison"]["difference"]["value"])):
        found.append(
            f"{NAMES.get(metric, metric)} could not be compared: it is not defined on these test images. What both files"
            " decide was."
        )
    if figures["distance"] is not None and isnan(figures["distance"]):
        found.append("Its distances from the training images could not be compared: do not rely on its refusals.")
    elif figures["distance"] is not None and figures["distance"] > LIMITS.distance:
        found.append(
            f"Its distances from the training images differ by {figures['distance']:.1%} (median): where it refuses foreign"
            " images, they may be others than the float32 file's."
        )
    maps = figures["maps"]
    if maps is None:
        found.append("Its maps were not tested.")
    elif isnan(maps["mean"]):
        found.append("Its maps could not be compared with the float32 file's.")
    elif maps["mean"] < LIMITS.maps:
        found.append(
            f"Its maps correlate with the float32 file's by {maps['mean']:.2f} (at least {LIMITS.maps} is wanted): what was"
            " found of those does not hold of them."
        )
    return found
