"""Do maps lie on what people marked? Against masks that they drew."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from stillroom.errors import UsageError

TOLERANCE = 0.02


def mask_energy(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of each map's sum that lies inside its mask, ``[B]`` in [0, 1] (the energy-based pointing game of Wang et al.,
    CVPR workshops 2020); NaN for a map that is all 0.

    Args:
        maps: ``[B, H, W]``, nothing below 0.
        masks: ``[B, H, W]`` bool.
    """
    _check(maps, masks)
    energy = maps.double()
    return (energy * masks).sum(dim=(1, 2)) / energy.sum(dim=(1, 2))


def mask_share(masks: Tensor) -> Tensor:
    """Share of the image that each of ``[B, H, W]`` bool masks covers, ``[B]``: the energy that a flat map scores."""
    return masks.double().mean(dim=(1, 2))


def pointing(maps: Tensor, masks: Tensor, *, tolerance: float = TOLERANCE) -> Tensor:
    """Whether each map's maximum lies on the mask, or near it: the pointing game (Zhang et al., IJCV 2018).

    Args:
        maps: ``[B, H, W]``.
        masks: ``[B, H, W]`` bool.
        tolerance: distance that still counts, as a share of the longer side, 0 or more.

    Returns:
        ``[B]`` float64, 0 or 1; of several equal maxima the share that hits. NaN for an empty mask.
    """
    _check(maps, masks)
    if tolerance < 0:
        raise UsageError(f"tolerance must be 0 or more, got {tolerance}.")
    reach = tolerance * max(maps.shape[-2:])
    hits = []
    for heat, mask in zip(maps.cpu().numpy(), masks.cpu().numpy().astype(bool), strict=True):
        near = distance_transform_edt(~mask)[heat == heat.max()] <= reach
        hits.append(near.mean() if mask.any() else np.nan)
    return torch.tensor(hits, dtype=torch.float64)


def _check(maps: Tensor, masks: Tensor) -> None:
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise UsageError(f"Expected a mask for every map: maps {list(maps.shape)}, masks {list(masks.shape)}.")
