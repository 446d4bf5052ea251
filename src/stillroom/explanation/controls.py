"""Trivial heat maps, made without asking any network: what an explanation must beat to be worth looking at."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TRIVIAL = ("centre", "edges", "random")

_CENTRE_WIDTH = 0.2  # standard deviation of the blob, as a share of the side
_EDGE_WIDTH = 0.01
_FIELD = 7  # places along a side of the random field, as many as the last feature map of most networks at 224 px


def trivial_maps(images: Tensor, *, seed: int) -> dict[str, Tensor]:
    """Maps that know nothing of any network, each ``[B, H, W]`` float32 in [0, 1].

    ``centre`` is a Gaussian blob in the middle, where photographers put what matters; ``edges`` the strength of the grey
    image's Sobel gradient, lightly blurred (Adebayo et al., NeurIPS 2018, show how much it looks like an explanation);
    ``random`` a smooth field of its own for each image.

    Args:
        images: ``[B, C, H, W]`` in [0, 1].
        seed: of the random fields.
    """
    count, _, height, width = images.shape
    rows = torch.linspace(-0.5, 0.5, height, device=images.device)[:, None]
    columns = torch.linspace(-0.5, 0.5, width, device=images.device)[None]
    centre = torch.exp(-(rows**2 + columns**2) / (2 * _CENTRE_WIDTH**2)).expand(count, height, width)
    generator = torch.Generator().manual_seed(seed)
    field = torch.randn(count, 1, _FIELD, _FIELD, generator=generator).to(images.device)
    field = F.interpolate(field, (height, width), mode="bicubic", align_corners=False)[:, 0]
    edges = blur(_sobel(images.float().mean(dim=1)), _EDGE_WIDTH * max(height, width))
    return {"centre": stretched(centre), "edges": stretched(edges), "random": stretched(field)}


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of ``[..., H, W]``, ``sigma`` in pixels, above 0. At the border only pixels inside have weight, so that
    an even image stays as it is."""
    height, width = images.shape[-2:]
    return _window(height, sigma, images) @ images @ _window(width, sigma, images).T


def stretched(maps: Tensor) -> Tensor:
    """Each map of ``[..., H, W]`` from its smallest value to 0 to its largest to 1; a flat one becomes all 0."""
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    return torch.where(high > low, (maps - low) / torch.where(high > low, high - low, 1.0), 0.0)


def _window(side: int, sigma: float, like: Tensor) -> Tensor:
    places = torch.arange(side, device=like.device, dtype=like.dtype)
    weights = torch.exp(-((places[:, None] - places[None]) ** 2) / (2 * sigma**2))
    return weights / weights.sum(dim=1, keepdim=True)


def _sobel(grey: Tensor) -> Tensor:
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=grey.device)
    kernels = torch.stack([across, across.T])[:, None]
    return F.conv2d(F.pad(grey[:, None], (1, 1, 1, 1), mode="replicate"), kernels).norm(dim=1)
