"""Which layers of a network stay float32 in its int8 file: as few as validation allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillroom.deployment.compensation import compensated
from stillroom.deployment.graph import Graph, Layer
from stillroom.deployment.likeness import LIMITS, Answers, alike_enough, distance_error
from stillroom.deployment.quantisation import feature_means, quantised, recentre
from stillroom.deployment.session import Opened, open_session
from stillroom.progress import progress
from stillroom.task import Task

if TYPE_CHECKING:
    from onnx import ModelProto

INT8_FILE = "student.int8.onnx"
"""Its name in a run's folder, beside the float32 file."""

_ROOM = 0.75
"""Of the limit on distances: what validation finds is not quite what the test will."""
MOST_LEFT = 4
_FITTED_BY = 64
_AT_ONCE = 32


@dataclass(frozen=True)
class Sensitivity:
    """How much rounding one layer's weights, and no other's, moves the answers, beyond what moves all images alike.

    Attributes:
        layer: which.
        logits: root mean square of the change, as a share of the logits' spread over images.
        distance: median relative change of the distance from the training images; None where the file knows none.
    """

    layer: Layer
    logits: float
    distance: float | None

    @property
    def worst(self) -> float:
        """What layers are ordered by."""
        return max(self.logits, self.distance or 0.0)

    @property
    def reason(self) -> str:
        """Why it stays float32, in words."""
        also = "" if self.distance is None else f" and distances by {self.distance:.1%}"
        return f"{self.layer.name}: rounding it alone moves logits by {self.logits:.1%} of their spread{also}"


@dataclass(frozen=True)
class Trial:
    """An int8 file as validation found it.

    Attributes:
        model: its graph.
        left_float: the layers that stay float32, and why.
        weights: of the others, by the layer's number; None where each was rounded to the nearest step.
        agreement: share of validation images decided as by the float32 network.
        distance: median relative difference of distances; None where the file knows none.
        levels: share of images decided alike at the lowest and the highest level of optimisation.
        images: how many there were.
    """

    model: ModelProto
    left_float: tuple[Sensitivity, ...]
    weights: Mapping[int, np.ndarray] | None
    agreement: float
    distance: float | None
    levels: float
    images: int

    @property
    def good(self) -> bool:
        """Whether it is within the limits."""
        near = self.distance is None or self.distance <= _ROOM * LIMITS.distance
        return near and self._alike

    @property
    def rank(self) -> tuple[bool, float]:
        """Of two that are not good, the higher is the better one."""
        return self._alike, -(self.distance or 1 - self.agreement)

    @property
    def _alike(self) -> bool:
        return alike_enough(min(self.agreement, self.levels), self.images)


def asked(model: ModelProto, images: np.ndarray, *, level: str = "all") -> Answers:
    """What a graph says of images ``[N, C, S, S]``, before any rule."""
    return asked_of(model, (images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)), level=level)


def asked_of(model: ModelProto, batches: Iterable[np.ndarray], *, level: str = "all") -> Answers:
    """The same of batches ``[B, C, S, S]``, at least one."""
    content = model.SerializeToString(deterministic=True)
    session = open_session(content, Opened(Path(INT8_FILE), 1, (0, 0), level, content))
    names = [name for name in ("logits", "distance") if name in {output.name for output in session.get_outputs()}]
    parts = [session.run(names, {"images": batch}) for batch in batches]
    found = dict(zip(names, (np.concatenate(values) for values in zip(*parts, strict=True)), strict=True))
    return Answers(found["logits"], found.get("distance"))


def sensitivities(graph: Graph, images: np.ndarray, *, show_progress: bool = False) -> list[Sensitivity]:
    """Every layer that can be rounded, the most sensitive first.

    Args:
        graph: the float32 network.
        images: ``[N, C, S, S]`` float32 in [0, 1], N >= 1, of validation.
        show_progress: draw a bar.
    """
    whole, means = asked(graph.model, images), feature_means(graph.model, graph, images)
    spread = float(whole.logits.std(axis=0).mean()) or 1.0
    found = []
    with progress("int8, each layer", len(graph.layers), enabled=show_progress) as advance:
        for layer in graph.layers:
            model = graph.with_rounded([layer])
            recentre(model, graph, images, means)
            moved = asked(model, images)
            logits = float(np.sqrt(((moved.logits - whole.logits) ** 2).mean())) / spread
            found.append(Sensitivity(layer, logits, distance_error(whole, moved)))
            advance()
    return sorted(found, key=lambda one: -one.worst)


def smallest_good(
    task: Task,
    graph: Graph,
    as_float: Answers,
    images: np.ndarray,
    order: Callable[[], Sequence[Sensitivity]],
    *,
    calibration: np.ndarray,
    show_progress: bool = False,
) -> Trial:
    """The file with the fewest float32 layers that validation finds within the limits; where none is, the nearest to them.

    Args:
        task: what the logits mean.
        graph: the float32 network, or one that learnt to be rounded in its place.
        as_float: what the float32 network says of ``images``.
        images: ``[N, C, S, S]`` float32 in [0, 1], of validation.
        order: gives the layers, the most sensitive first. It is asked where the file with no float32 layer is not good.
        calibration: ``[n, C, S, S]`` images by which the ranges of activations are found.
        show_progress: draw a bar for each trial.
    """
    best = _tried(task, graph, as_float, images, (), calibration, show_progress)
    for count in range(1, 1 if best.good else min(MOST_LEFT + 1, len(graph.layers))):
        tried = _tried(task, graph, as_float, images, tuple(order()[:count]), calibration, show_progress)
        if tried.good:
            return tried
        if tried.rank > best.rank:
            best = tried
    return best


def _tried(
    task: Task,
    graph: Graph,
    as_float: Answers,
    images: np.ndarray,
    left_float: tuple[Sensitivity, ...],
    calibration: np.ndarray,
    show_progress: bool,
) -> Trial:
    """The better file of two: with weights that make up for each other, and where that is not good, each to the nearest step.

    Of few images, or a network that hardly tells them apart, the first can learn what holds of these alone.
    """
    left = [one.layer for one in left_float]

    def judged(weights: Mapping[int, np.ndarray] | None) -> Trial:
        model = quantised(graph, calibration, left, weights)
        found, plain = asked(model, images), asked(model, images, level="none")
        said, *others = (task.one_hot(task.decide(task.probabilities(one.logits))) for one in (found, as_float, plain))
        agreement, levels = (float((said == other).all(axis=1).mean()) for other in others)
        return Trial(model, left_float, weights, agreement, distance_error(as_float, found), levels, len(images))

    with progress(f"int8, {len(left)} float" if left else "int8", len(graph.layers), enabled=show_progress) as advance:
        found = judged(compensated(graph, calibration[:_FITTED_BY], left, advance=advance))
    if found.good:
        return found
    nearest = judged(None)
    return nearest if nearest.good or nearest.rank > found.rank else found
