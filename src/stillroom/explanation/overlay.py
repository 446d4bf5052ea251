"""A heat map laid over its image, as a picture. NumPy and Pillow only."""

from __future__ import annotations

import numpy as np
from PIL import Image

# Dark violet over red to pale yellow: lightness rises all the way, so that it reads in grey and to the colour-blind.
_STOPS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
_COLOURS = np.array([[20, 11, 52], [106, 23, 110], [200, 58, 73], [245, 130, 24], [250, 250, 160]], dtype=np.float64)
_STRONGEST = 0.75  # opacity at 1: the image stays visible under the brightest place


def overlay(image: np.ndarray, heat: np.ndarray) -> Image.Image:
    """The image with the heat map over it; where the map is 0 the image is bare.

    Args:
        image: ``[H, W]`` or ``[H, W, 3]``, uint8, or uint16 of which the brightest pixel is shown white.
        heat: ``[H, W]`` in [0, 1].
    """
    pixels = image.astype(np.float64)
    if image.dtype != np.uint8:
        pixels *= 255 / max(float(image.max()), 1.0)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    opacity = _STRONGEST * np.clip(heat, 0, 1)[..., None]
    mixed = (1 - opacity) * pixels + opacity * coloured(heat)
    return Image.fromarray(np.rint(mixed).clip(0, 255).astype(np.uint8))


def veil(heat: np.ndarray) -> Image.Image:
    """``[H, W]`` in [0, 1] as a picture with transparency that, laid over the image, shows what :func:`overlay` does."""
    opacity = _STRONGEST * np.clip(heat, 0, 1)[..., None] * 255
    return Image.fromarray(np.rint(np.concatenate([coloured(heat), opacity], axis=-1)).astype(np.uint8), "RGBA")


def coloured(heat: np.ndarray) -> np.ndarray:
    """``[H, W]`` in [0, 1] to ``[H, W, 3]`` float64 in [0, 255]."""
    return np.stack([np.interp(heat, _STOPS, channel) for channel in _COLOURS.T], axis=-1)
