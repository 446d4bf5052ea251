"""Mixtures of two training images: mixup and cutmix, as pure functions of (seed, image, view number).

As with every view, nothing is drawn from a global random state, so a teacher's answer to a mixture can be stored and
paired with the very same mixture later. A partner comes from the image's own pool and is shown in the same view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from stillroom.data.views import uniforms

Mix = Literal["none", "mixup", "cutmix", "both"]

_FIRST_DRAW, _DRAWS = 32, 5  # the draws before these are the views' own
_MIXUP_BETA = 0.8
_CELLS = 16  # a pasted rectangle lies on a grid of 16 x 16, so that at most sides its edges fall between pixels


@dataclass(frozen=True)
class Mixture:
    """How the images of a batch are mixed, each with a partner.

    Attributes:
        partners: ``[B]`` row numbers; an image's own where it is in no pool.
        share: ``[B]`` float64 in [0.5, 1], the image's own share of the mixture; 1 where it is in no pool. Its labels
            count by it, the partner's by the rest.
        boxes: ``[B, 4]`` top, left, bottom and right of the rectangle that shows the partner, as shares of the side; all
            0 where the two are blended.
    """

    partners: np.ndarray
    share: np.ndarray
    boxes: np.ndarray


def draw_mixture(rows: np.ndarray, view: int, kind: Mix, seed: int, pools: Sequence[np.ndarray]) -> Mixture:
    """The mixture of each row in one view.

    Mixup's share is drawn from Beta(0.8, 0.8), cutmix's is uniform (Beta(1, 1)) to the grid that its square lies on; the
    larger share is the image's own, so that an epoch still shows every image.

    Args:
        rows: ``[B]`` row numbers.
        view: view number.
        kind: how to mix; ``both`` takes either for half of the images.
        seed: the run's seed.
        pools: disjoint arrays of row numbers; partners come from a row's own.
    """
    draws = uniforms(seed, rows, view, _FIRST_DRAW + _DRAWS)[:, _FIRST_DRAW:]
    partners, mixed = rows.astype(np.int64), np.zeros(len(rows), dtype=bool)
    for pool in pools:
        inside = np.isin(rows, pool)
        partners[inside] = pool[(draws[inside, 0] * len(pool)).astype(np.int64)]
        mixed |= inside

    cut = mixed & ({"mixup": 0.0, "cutmix": 1.0, "both": 0.5}[kind] > draws[:, 1])
    blended = betaincinv(_MIXUP_BETA, _MIXUP_BETA, draws[:, 2])
    cells = np.where(cut, np.round(_CELLS * np.sqrt(np.minimum(draws[:, 2], 1 - draws[:, 2]))), 0.0)
    corner = np.floor(draws[:, 3:5] * (_CELLS - cells + 1)[:, None]) * (cells > 0)[:, None]
    boxes = np.concatenate([corner, corner + cells[:, None]], axis=1) / _CELLS
    share = np.where(cut, 1 - (cells / _CELLS) ** 2, np.maximum(blended, 1 - blended))
    return Mixture(partners, np.where(mixed, share, 1.0), boxes)


def blend(images: Tensor, partners: Tensor, mixture: Mixture) -> Tensor:
    """The mixtures of ``images`` and ``partners``, ``[B, C, H, W]`` each, in the same view.

    Where a rectangle's edge runs through a pixel, that pixel shows both by what they cover of it: the partner's part of
    the picture is the same at every side, and so is what it counts for.
    """
    boxes = torch.from_numpy(mixture.boxes).to(images)
    vertical, horizontal = (
        _covered(boxes[:, axis], boxes[:, axis + 2], images.shape[axis + 2]) for axis in (0, 1)
    )  # [B, H], [B, W]
    pasted = vertical[:, None, :, None] * horizontal[:, None, None, :]
    cut = torch.from_numpy(mixture.boxes.any(axis=1)).to(images.device)[:, None, None, None]
    faded = torch.from_numpy(1 - mixture.share).to(images)[:, None, None, None]
    return torch.lerp(images, partners, torch.where(cut, pasted, faded))


def _covered(start: Tensor, end: Tensor, side: int) -> Tensor:
    """``[B, side]``: how much of each pixel lies between ``start`` and ``end`` ``[B]``, shares of the side."""
    edge = torch.arange(side, device=start.device, dtype=start.dtype)
    return (torch.minimum(edge + 1, end[:, None] * side) - torch.maximum(edge, start[:, None] * side)).clamp(0, 1)
