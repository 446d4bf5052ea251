"""A heat map laid over its image, as a picture. NumPy and Pillow only."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

LEGEND = (
    "From indigo (little) to bright blue (most); a bright line with a dark rim encloses what has half of that or more"
)
"""How to read a picture, in words for whoever shows one."""

# Indigo to bright blue, for next to nothing in a body or on a stained slide is blue: on grey, yellow, pink and purple it
# stays apart for every kind of colour vision. Lightness rises all the way, so that it reads in grey.
_STOPS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
_COLOURS = np.array([[45, 0, 100], [75, 25, 150], [10, 105, 240], [0, 155, 255], [90, 215, 255]], dtype=np.float64)
_STRONGEST = 0.75  # opacity at 1: the image stays visible under the brightest place
_HALF = 0.5
_BRIGHT, _DARK = (255, 255, 255), (10, 10, 20)  # side by side they show on anything
_FINE = 300  # a line is one pixel wide in so many of the longer side


def overlay(image: np.ndarray, heat: np.ndarray) -> Image.Image:
    """The image with the heat map over it; where the map is 0 the image is bare.

    A bright line with a dark rim encloses what has half of the most heat that a map can have, or more.

    Args:
        image: ``[H, W]`` or ``[H, W, 3]``, uint8, or uint16, of which the darkest pixel is shown black and the brightest
            white: a CT fills a small part of what its bits can hold.
        heat: ``[H, W]`` in [0, 1].
    """
    pixels = image.astype(np.float64)
    if image.dtype != np.uint8:
        pixels -= pixels.min()
        pixels *= 255 / max(pixels.max(), 1.0)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    over = _veil(heat)
    opacity = over[..., 3:] / 255
    mixed = (1 - opacity) * pixels + opacity * over[..., :3]
    return Image.fromarray(np.rint(mixed).clip(0, 255).astype(np.uint8))


def veil(heat: np.ndarray) -> Image.Image:
    """``[H, W]`` in [0, 1] as a picture with transparency that, laid over the image, shows what :func:`overlay` does."""
    return Image.fromarray(np.rint(_veil(heat)).astype(np.uint8), "RGBA")


def coloured(heat: np.ndarray) -> np.ndarray:
    """``[H, W]`` in [0, 1] to ``[H, W, 3]`` float64 in [0, 255]."""
    return np.stack([np.interp(heat, _STOPS, channel) for channel in _COLOURS.T], axis=-1)


def palette() -> dict[str, Any]:
    """The colours of heat, for those who draw it elsewhere: ``stops``, their ``colours`` and the ``strongest`` opacity."""
    return {"stops": _STOPS.tolist(), "colours": _COLOURS.tolist(), "strongest": _STRONGEST}


def _veil(heat: np.ndarray) -> np.ndarray:
    """``[H, W]`` in [0, 1] to colour and opacity, ``[H, W, 4]`` float64 in [0, 255]."""
    over = np.concatenate([coloured(heat), _STRONGEST * np.clip(heat, 0, 1)[..., None] * 255], axis=-1)
    width = max(1, round(max(heat.shape) / _FINE))
    hot = heat >= _HALF
    rimmed = _shrunk(hot, width)  # both lines lie inside, so that nothing is drawn where there is no heat
    over[hot & ~rimmed] = (*_DARK, 255)
    over[rimmed & ~_shrunk(rimmed, width)] = (*_BRIGHT, 255)
    return over


def _shrunk(inside: np.ndarray, by: int) -> np.ndarray:
    """``[H, W]`` bool without what lies within ``by`` pixels of its border; the image's own edge is none."""
    for _ in range(by):
        padded = np.pad(inside, 1, constant_values=True)
        inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside
