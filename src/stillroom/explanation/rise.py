"""RISE (Petsiuk et al., BMVC 2018): a class's evidence by place, from answers to the image behind random masks.

NumPy only, like :mod:`stillroom.explanation.score_cam`. It asks the network of nothing but its answers: no layer has to be
chosen, its places are as fine for a network whose last map is coarse, and it costs the same however many channels there are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stillroom.explanation.score_cam import enlarge

Masked = Callable[[np.ndarray], np.ndarray]
"""Masks ``[n, H, W]`` float32 in [0, 1] to the class's logit on the image under each, ``[n]``; where a mask is 0 the network
sees its mean."""

MASKS = 160

_PLACES = 8  # a side, each shown or hidden by the toss of a coin
_AT_ONCE = 32
_SEED = 0


def rise(size: tuple[int, int], ask: Masked) -> np.ndarray:
    """``ReLU(sum_i (s_i - mean(s)) m_i)``, ``[H, W]`` float32: the covariance of what is shown and what is answered.

    The paper divides a sum of probabilities by how often a pixel was shown; without the mean, few masks do, and logits tell
    more where the network is sure. The masks are the same for every image and network.

    Args:
        size: height and width of the image.
        ask: asks the network.
    """
    masks = _masks(size)
    answers = np.concatenate([ask(masks[start : start + _AT_ONCE]) for start in range(0, MASKS, _AT_ONCE)])
    answers = np.asarray(answers, dtype=np.float64) - np.mean(answers, dtype=np.float64)
    return np.maximum(np.tensordot(answers, masks - masks.mean(axis=0), axes=1), 0.0).astype(np.float32)


def drawn(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """What the masks of images of this size are made from: patterns, and where the image lies on each, enlarged.

    Returns:
        ``[MASKS, n, n]`` bool, what is shown; ``[MASKS, 2]`` rows and columns, where the image begins; and by how many rows
        and columns the enlarged patterns reach beyond the image.
    """
    luck = np.random.default_rng(_SEED)
    patterns = luck.random((MASKS, _PLACES + 1, _PLACES + 1)) < 0.5
    moves = luck.random((MASKS, 2))
    reach = (-(-size[0] // _PLACES), -(-size[1] // _PLACES))
    return patterns, (moves * (np.array(reach) + 1)).astype(int), reach


def _masks(size: tuple[int, int]) -> np.ndarray:
    """``[MASKS, H, W]`` float32: coarse patterns with soft borders, each moved by less than a place."""
    patterns, starts, reach = drawn(size)
    large = enlarge(patterns.astype(np.float32), (size[0] + reach[0], size[1] + reach[1]))
    return np.stack([mask[r : r + size[0], c : c + size[1]] for mask, (r, c) in zip(large, starts, strict=True)])
