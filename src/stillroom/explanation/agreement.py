"""How much two heat maps of the same image agree."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stillroom.errors import UsageError

TOP = 0.2
_WINDOW, _SIGMA = 11, 1.5


def agreement(first: Tensor, second: Tensor) -> dict[str, Tensor]:
    """Agreement of two maps per image, ``[B]`` float64 each; 1 for equal ones.

    ``pearson`` is the correlation over pixels, in [-1, 1]. ``ssim`` the mean structural similarity (Wang et al., IEEE TIP
    2004: Gaussian window of 11 pixels, or what fits), in [-1, 1]. ``iou`` the overlap of the two maps' top 20 % of pixels,
    in [0, 1]; of pixels that tie at the limit none belongs to the top, unless it would be empty. Correlation and overlap are
    NaN where either map is flat.

    Args:
        first: ``[B, H, W]`` in [0, 1].
        second: as ``first``.
    """
    if first.ndim != 3 or first.shape != second.shape:
        raise UsageError(f"Expected two maps for every image, got {list(first.shape)} and {list(second.shape)}.")
    first, second = first.cpu().double(), second.cpu().double()  # MPS has no float64
    flat = _flat(first) | _flat(second)
    found = {"pearson": _pearson(first, second), "ssim": _ssim(first, second), "iou": _iou(first, second)}
    return {name: values if name == "ssim" else values.masked_fill(flat, torch.nan) for name, values in found.items()}


def _flat(maps: Tensor) -> Tensor:
    return maps.amax(dim=(1, 2)) == maps.amin(dim=(1, 2))


def _pearson(first: Tensor, second: Tensor) -> Tensor:
    first, second = (maps.flatten(1) - maps.flatten(1).mean(dim=1, keepdim=True) for maps in (first, second))
    return F.cosine_similarity(first, second, dim=1, eps=0.0)


def _ssim(first: Tensor, second: Tensor) -> Tensor:
    size = min(_WINDOW, *(side - 1 + side % 2 for side in first.shape[-2:]))
    rows, columns = (_windows(side, size).to(first) for side in first.shape[-2:])
    signals = torch.stack([first, second, first**2, second**2, first * second])
    local = rows @ signals @ columns.T
    mean_1, mean_2, square_1, square_2, product = local
    variances = square_1 - mean_1**2 + square_2 - mean_2**2
    light, contrast = 0.01**2, 0.03**2  # of a range of 1
    similar = (2 * mean_1 * mean_2 + light) * (2 * (product - mean_1 * mean_2) + contrast)
    return (similar / ((mean_1**2 + mean_2**2 + light) * (variances + contrast))).mean(dim=(1, 2))


def _windows(side: int, size: int) -> Tensor:
    """``[side - size + 1, side]``: a Gaussian of ``size`` weights at each place where it lies inside."""
    places = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-(places**2) / (2 * _SIGMA**2))
    return torch.stack([F.pad(line / line.sum(), (start, side - size - start)) for start in range(side - size + 1)])


def _iou(first: Tensor, second: Tensor) -> Tensor:
    first, second = _top(first), _top(second)
    return (first & second).sum(dim=1) / (first | second).sum(dim=1).double()


def _top(maps: Tensor) -> Tensor:
    """``[B, HW]`` bool."""
    flat = maps.flatten(1)
    ordered = flat.sort(dim=1, descending=True).values
    limit = ordered[:, round(TOP * flat.shape[1]), None]
    highest = ordered[:, :1]
    return torch.where(limit < highest, flat > limit, flat == highest)
