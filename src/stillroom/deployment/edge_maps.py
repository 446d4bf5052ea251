"""Heat maps from an exported model: Score-CAM through ONNX Runtime, no torch."""

from __future__ import annotations

import numpy as np

from stillroom.deployment.predictor import Predictor
from stillroom.errors import UsageError
from stillroom.explanation.score_cam import enlarge, finished, score_cam, stretch

_AT_ONCE = 32  # masked images; more are no faster on a CPU


def edge_map(predictor: Predictor, image: np.ndarray, number: int, *, fast: bool = False) -> np.ndarray:
    """Where the exported model sees a class, by Score-CAM as :func:`~stillroom.explanation.heat_maps.heat_maps` makes it.

    Args:
        predictor: of a file that answers ``map``.
        image: ``[C, S, S]`` float32 in [0, 1], see :meth:`Predictor.prepare`.
        number: the class to explain.
        fast: estimate the map from a sixth of the passes.

    Returns:
        ``[S, S]`` float32 in [0, 1]; all 0 where nothing speaks for the class.

    Raises:
        UsageError: the file has no ``map``.
    """
    if "members" in predictor.metadata.details:
        raise UsageError(f"This {predictor.name} is an ensemble, whose members have maps of their own: it has none.")
    if predictor.metadata.layer is None:
        raise UsageError(
            f"The exported {predictor.name} has no feature map of more than one place, so it makes no heat maps. Train it on "
            "larger images, or choose another student."
        )
    size = (predictor.size, predictor.size)
    hidden = np.array(predictor.metadata.hidden, dtype=np.float32).reshape(-1, 1, 1)

    def score(channels: np.ndarray) -> np.ndarray:
        scores = []
        for start in range(0, len(channels), _AT_ONCE):
            masks = stretch(enlarge(channels[start : start + _AT_ONCE], size))
            scores.append(predictor.logits(hidden + (image - hidden) * masks[:, None])[:, number])
        return np.concatenate(scores)

    channels = predictor.ask(image[None], "map")["map"][0]
    return finished(score_cam(channels, score, fast=fast), size)
