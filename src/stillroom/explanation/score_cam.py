"""Score-CAM (Wang et al., CVPR 2020): a class's evidence, map by map, from forward passes alone.

NumPy only: whoever can score an image under a mask can draw the map, torch or ONNX Runtime alike.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Score = Callable[[np.ndarray], np.ndarray]
"""Channels of a feature map ``[n, h, w]`` to the class's logit on the image under each as a mask, ``[n]``.

The mask is the channel brought to the image's size (:func:`enlarge`) and stretched to [0, 1] (:func:`stretch`); where it is 0
the network sees 0, which is its mean where it normalises images itself."""

FEWEST_CHANNELS = 24
"""With fewer channels the fast mode has nothing to save and is the exact one."""

FEWEST_ASKED = 32
"""However little time there is: from fewer, an estimate has little to do with the map."""

_ASKED = 1 / 6  # of the channels, in the fast mode
_SPREAD = 0.3  # of those asked
_CURIOSITY = 0.5  # standard deviations
_ROUNDS = 6
_ROUGHNESS = 0.1  # of the variance: what masks that are nearly alike may still differ by


def score_cam(channels: np.ndarray, score: Score, *, fast: bool = False, most: int | None = None) -> np.ndarray:
    """``ReLU(sum_k w_k A_k)`` with ``w = softmax_k(logit_c(x * mask_k))``, at the feature map's own size.

    The softmax makes a baseline's logit, which the paper subtracts first, cancel out.

    Args:
        channels: ``A``, ``[K, h, w]``, the layer's feature map of one image.
        score: asks the network.
        fast: ask for a sixth of the channels and estimate the others, see :func:`estimated_scores`.
        most: with ``fast``, ask for no more channels than these where they are fewer, see :func:`asked_for`.

    Returns:
        ``[h, w]`` float32, at least 0.
    """
    channels = np.asarray(channels, dtype=np.float32)
    every = np.arange(len(channels))

    def ask(chosen: np.ndarray) -> np.ndarray:
        return np.asarray(score(channels[chosen]), dtype=np.float64)

    budget = asked_for(len(channels), fast=fast, most=most)
    scores = estimated_scores(channels, ask, budget) if budget < len(channels) else ask(every)
    weights = np.exp(scores - scores.max())
    return np.maximum(np.tensordot(weights / weights.sum(), channels, axes=1), 0.0).astype(np.float32)


def asked_for(channels: int, *, fast: bool, most: int | None = None) -> int:
    """For how many of a layer's channels the network is asked: in the fast mode a sixth.

    ``most`` is for who has no time for a sixth. It is no less than :data:`FEWEST_ASKED`.
    """
    if not fast or channels < FEWEST_CHANNELS:
        return channels
    sixth = max(8, round(channels * _ASKED))
    return sixth if most is None else min(sixth, max(most, FEWEST_ASKED))


def estimated_scores(channels: np.ndarray, ask: Callable[[np.ndarray], np.ndarray], budget: int) -> np.ndarray:
    """Scores of all channels, ``[K]``, of which ``budget`` are asked for and the rest are interpolated.

    Masks that are alike score alike: in between, scores are those of a Gaussian process over the masks. The first third of
    those asked are spread over the masks, each the farthest from those before it. The rest go, in rounds, to the channels
    that may weigh most, since these make the map (expected score plus half a standard deviation).

    Args:
        channels: ``[K, h, w]``.
        ask: channel numbers ``[n]`` to their scores.
        budget: how many are asked for, at least 4 and fewer than K.
    """
    masks = stretch(channels).reshape(len(channels), -1).astype(np.float64)
    squared = (masks**2).sum(axis=1)
    distances = np.maximum(squared[:, None] + squared[None] - 2 * masks @ masks.T, 0.0)
    asked = _spread(distances, max(4, round(budget * _SPREAD)))
    scores = ask(asked)
    for number in range(_ROUNDS):
        expected, doubt = _interpolated(distances, asked, scores)
        promise = expected + _CURIOSITY * doubt
        promise[asked] = -np.inf
        best = np.argsort(-promise, kind="stable")[: (budget - len(asked)) // (_ROUNDS - number)]
        if len(best):
            asked, scores = np.concatenate([asked, best]), np.concatenate([scores, ask(best)])
    found, _ = _interpolated(distances, asked, scores)
    found[asked] = scores
    return found


def enlarge(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``[..., h, w]`` at another height and width, bilinear between the places' centres, as torch's default has it."""
    rows, columns = (_interpolation(*pair) for pair in zip(maps.shape[-2:], size, strict=True))
    return rows @ maps @ columns.T


def stretch(maps: np.ndarray) -> np.ndarray:
    """Each of ``[..., h, w]`` so that its smallest value is 0 and its largest 1; all 0 where they are equal."""
    low, high = maps.min(axis=(-2, -1), keepdims=True), maps.max(axis=(-2, -1), keepdims=True)
    span = high - low
    return np.divide(maps - low, span, out=np.zeros_like(maps), where=span > 0)


def finished(evidence: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The heat map ``[..., H, W]`` in [0, 1] of a class's evidence ``[..., h, w]``; all 0 where there is none."""
    return np.clip(stretch(enlarge(evidence, size)), 0.0, 1.0).astype(np.float32)


def _spread(distances: np.ndarray, count: int) -> np.ndarray:
    """``count`` numbers, from the most central on, each the farthest from those before it."""
    chosen = [int(distances.sum(axis=0).argmin())]
    nearest = distances[chosen[0]].copy()
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, distances[chosen[-1]])
    return np.array(chosen)


def _interpolated(distances: np.ndarray, asked: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of a Gaussian process with a squared-exponential kernel, ``[K]`` each."""
    width = 2 * np.median(distances[np.ix_(asked, asked)]) or 1.0
    kernel = np.exp(-distances[:, asked] / width)
    solved = np.linalg.solve(kernel[asked] + _ROUGHNESS * np.eye(len(asked)), kernel.T)
    left = np.maximum(1 - (kernel * solved.T).sum(axis=1), 0.0)
    return scores.mean() + (scores - scores.mean()) @ solved, np.sqrt(left) * scores.std()


def _interpolation(source: int, target: int) -> np.ndarray:
    """``[target, source]`` float32 weights of bilinear interpolation along one axis."""
    place = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, source - 1)
    weights = np.zeros((target, source), dtype=np.float32)
    np.add.at(weights, (np.arange(target), below), 1 - (place - below))
    np.add.at(weights, (np.arange(target), above), place - below)
    return weights
