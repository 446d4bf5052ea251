"""Views: augmentation in batches, on the device, as a pure function of (seed, image, view number).

Nothing is drawn from a global random state, so a teacher's answer to a view can be computed once, stored, and later
paired with exactly the same pixels. A view number of None is the image itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stillroom.settings.sections import ViewSettings


@dataclass(frozen=True)
class _Strength:
    shift: float  # of the side, either way
    zoom: float  # log-scale, either way
    rotation: float  # degrees, either way
    gain: float  # relative brightness, either way
    contrast: float  # relative, either way
    gamma: float  # log-gamma, either way
    patch: float  # side of the hidden patch at most, of the image's side


_STRENGTHS = {
    "none": _Strength(shift=0.0, zoom=0.0, rotation=0.0, gain=0.0, contrast=0.0, gamma=0.0, patch=0.0),
    "light": _Strength(shift=0.06, zoom=0.08, rotation=8.0, gain=0.1, contrast=0.15, gamma=0.0, patch=0.0),
    "strong": _Strength(shift=0.12, zoom=0.2, rotation=20.0, gain=0.2, contrast=0.3, gamma=0.3, patch=0.35),
}
VIEWS_VERSION = 2
"""Raised whenever a change here or in mixtures.py alters a view: stored answers to the old views are then not found."""

_DRAWS = 14  # uniform numbers used per view


def view_of_epoch(settings: ViewSettings, epoch: int) -> int | None:
    """The view number that epoch ``epoch`` (from 0) trains on: the stored views take turns, or each epoch has its own."""
    if settings.still:
        return None
    return epoch % settings.views if settings.views else epoch


def view_numbers(settings: ViewSettings, epochs: int) -> list[int | None]:
    """Every view number that so many epochs ask for, what a bank must hold; empty where no two epochs share a view."""
    return [None] if settings.still else list(range(min(settings.views, epochs)))


def augment(images: Tensor, samples: np.ndarray, view: int | None, settings: ViewSettings, seed: int) -> Tensor:
    """One view of each image.

    A crop keeps the image's proportions and takes its place inside what rotation, zoom and shift leave: all of it is one
    resampling, in shares of the side, so that a view shows the same at every side.

    Args:
        images: ``[B, C, H, W]`` float in [0, 1].
        samples: ``[B]`` the images' row numbers: the same row, view and seed always give the same view, whatever
            else is in the batch.
        view: view number, or None for the images as they are.
        settings: strength, whether mirroring is allowed, and how much a crop keeps.
        seed: the run's seed.

    Returns:
        ``[B, C, H, W]`` float in [0, 1].
    """
    if view is None or (settings.augment == "none" and settings.crop == 1 and not settings.flips):
        return images
    strength = _STRENGTHS[settings.augment]
    draws = torch.from_numpy(uniforms(seed, samples, view, _DRAWS)).to(images)
    signed = 2 * draws - 1

    angle = signed[:, 0] * math.radians(strength.rotation)
    scale = torch.exp(signed[:, 1] * strength.zoom)
    mirror = torch.where(draws[:, 4] < 0.5, -1.0, 1.0) if settings.flips else torch.ones_like(angle)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    # Shifts are in grid_sample's units, where the whole side is 2.
    shift_x, shift_y = 2 * strength.shift * signed[:, 2], 2 * strength.shift * signed[:, 3]
    matrix = torch.stack(
        [torch.stack([cosine * mirror, -sine, shift_x], 1), torch.stack([sine * mirror, cosine, shift_y], 1)],
        1,
    )
    if settings.crop < 1:
        matrix = matrix @ _crop(draws[:, 11:14], settings.crop)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    images = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    gain = (1 + strength.gain * signed[:, 5])[:, None, None, None]
    contrast = (1 + strength.contrast * signed[:, 6])[:, None, None, None]
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = torch.addcmul(mean * gain * (1 - contrast), images, gain * contrast).clamp_(0, 1)
    if strength.gamma:
        images = images.clamp(min=1e-6) ** torch.exp(strength.gamma * signed[:, 7])[:, None, None, None]
    if strength.patch:
        images = _hide_patch(images, draws[:, 8:11], strength.patch)
    return images


def uniforms(seed: int, samples: np.ndarray, view: int, count: int) -> np.ndarray:
    """``[B, count]`` float64 in [0, 1), a hash of (seed, sample, view, position): SplitMix64's finaliser, keyed."""
    with np.errstate(over="ignore"):
        key = _mix(np.uint64(seed % 2**64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(view + 1))
        rows = _mix(np.asarray(samples).astype(np.uint64) + key)
        steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits = _mix(rows[:, None] + steps[None])
    return (bits >> np.uint64(11)).astype(np.float64) / 2.0**53


def _mix(value: Any) -> Any:
    """SplitMix64's finaliser on uint64 scalars or arrays."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _crop(draws: Tensor, smallest: float) -> Tensor:
    """``[B, 3, 3]`` from the whole view's coordinates to those of a part; its area and place come from ``draws [B, 3]``."""
    side = (smallest + (1 - smallest) * draws[:, 0]).sqrt()
    place = (2 * draws[:, 1:] - 1) * (1 - side)[:, None]
    part = torch.diag_embed(torch.stack([side, side, torch.ones_like(side)], 1))
    part[:, :2, 2] = place
    return part


def _hide_patch(images: Tensor, draws: Tensor, largest: float) -> Tensor:
    """Fill one square per image with that image's mean; its place and side come from ``draws`` ``[B, 3]``."""
    side = images.shape[-1]
    half = draws[:, 0] * largest * side / 2
    axis = torch.arange(side, device=images.device) + 0.5
    inside_y = (axis[None] - draws[:, 1, None] * side).abs() < half[:, None]
    inside_x = (axis[None] - draws[:, 2, None] * side).abs() < half[:, None]
    hidden = (inside_y[:, None, :, None] & inside_x[:, None, None, :]).expand_as(images)
    return torch.where(hidden, images.mean(dim=(1, 2, 3), keepdim=True), images)
