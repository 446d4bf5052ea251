"""Heat maps from an exported model: RISE and Score-CAM through ONNX Runtime, no torch."""

from __future__ import annotations

import numpy as np

from stillroom.deployment.predictor import Predictor
from stillroom.errors import UsageError
from stillroom.explanation.rise import rise
from stillroom.explanation.score_cam import enlarge, finished, score_cam, stretch
from stillroom.settings.methods import BY_MASKS, Method

_AT_ONCE = 32  # masked images; more are no faster on a CPU


def edge_map(
    predictor: Predictor,
    image: np.ndarray,
    number: int,
    *,
    method: Method = "score_cam",
    fast: bool = False,
    most: int | None = None,
) -> np.ndarray:
    """Where the exported model sees a class, as :func:`~stillroom.explanation.heat_maps.heat_maps` draws it.

    Args:
        predictor: of a file that answers ``map``, but for ``rise``.
        image: ``[C, S, S]`` float32 in [0, 1], see :meth:`Predictor.prepare`.
        number: the class to explain.
        method: ``rise``, ``score_cam`` or ``score_cam_fast``.
        fast: for ``score_cam``, the same as ``score_cam_fast``.
        most: for ``score_cam_fast``, ask for no more channels than these, as the page does where a sixth takes too long.

    Returns:
        ``[S, S]`` float32 in [0, 1]; all 0 where nothing speaks for the class.

    Raises:
        UsageError: the file has no ``map``, or cannot draw such a map.
    """
    if "members" in predictor.metadata.details:
        raise UsageError(f"This {predictor.name} is an ensemble, whose members have maps of their own: it has none.")
    if method not in BY_MASKS:
        raise UsageError(f"An exported file draws no {method}, which needs torch. It draws: {', '.join(BY_MASKS)}.")
    if predictor.metadata.layer is None and method != "rise":
        raise UsageError(
            f"The exported {predictor.name} has no feature map of more than one place, so it makes no heat maps. Train it on "
            "larger images, choose another student, or draw it by rise."
        )
    size = (predictor.size, predictor.size)
    hidden = np.array(predictor.metadata.hidden, dtype=np.float32).reshape(-1, 1, 1)

    def ask(masks: np.ndarray) -> np.ndarray:
        return predictor.logits(hidden + (image - hidden) * masks[:, None])[:, number]

    def score(channels: np.ndarray) -> np.ndarray:
        starts = range(0, len(channels), _AT_ONCE)
        return np.concatenate([ask(stretch(enlarge(channels[start : start + _AT_ONCE], size))) for start in starts])

    if method == "rise":
        return finished(rise(size, ask), size)
    channels = predictor.ask(image[None], "map")["map"][0]
    return finished(score_cam(channels, score, fast=fast or method == "score_cam_fast", most=most), size)
