"""The quality of images in four well-known figures, from the pixels that the student sees and the size they came in.

- sharpness: variance of the Laplacian (Pech-Pacheco et al., ICPR 2000): low where edges are soft, high also where noise is.
- contrast: standard deviation of the grey values (Peli, J Opt Soc Am A 1990).
- brightness: their mean.
- size: the shorter side in pixels, before the image was made square.

The black borders that make an image square are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stillroom.data.bands import Grouping, banded, thirds
from stillroom.data.geometry import Fit, inner_box
from stillroom.data.store import Store

PROPERTIES = {
    "sharpness": ("blurred", "middling", "sharp"),
    "contrast": ("low", "middling", "high"),
    "brightness": ("dark", "middling", "bright"),
    "size": ("small", "middling", "large"),
}
"""What is measured, and what the thirds are called."""
LEARNT = 3000
"""Of so many training images thirds are made: more move their edges by nothing that matters."""
_CELLS = 200_000  # float32 numbers held at once of one block
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def quality_of(store: Store, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of these rows' images by name, ``[n]`` float64 each; grey values count from 0 (black) to 1 (white)."""
    sizes = store.original_sizes[rows]
    boxes = np.array([_box(height, width, store.size, store.fit) for height, width in sizes.tolist()]).reshape(
        len(rows), 4
    )
    found = np.empty((3, len(rows)))
    # Images of one shape are cut alike: there are few shapes at the stored side.
    shapes, shape = np.unique(boxes, axis=0, return_inverse=True)
    for number, (top, bottom, left, right) in enumerate(shapes.tolist()):
        places = np.flatnonzero(shape.ravel() == number)
        height, width = bottom - top, right - left
        step = max(1, _CELLS // (height * width))
        # Written over and over: fresh memory for every block would cost more than the arithmetic.
        grey = np.empty((min(step, len(places)), height, width), dtype=np.float32)
        curved = np.empty((len(grey), max(height - 2, 0), max(width - 2, 0)), dtype=np.float32)
        for start in range(0, len(places), step):
            part = places[start : start + step]
            pixels = store.batch(rows[part])[:, :, top:bottom, left:right]
            found[:, part] = _measured(pixels, store.white, grey[: len(part)], curved[: len(part)])
    return dict(zip(PROPERTIES, (*found, sizes.min(axis=1).astype(np.float64)), strict=True))


def quality_of_image(pixels: np.ndarray, height: int, width: int, fit: Fit) -> tuple[float, ...]:
    """The figures of one image in the order of :data:`PROPERTIES`.

    Args:
        pixels: ``[C, S, S]`` float32 in [0, 1], made square.
        height, width: before that.
        fit: how it was made square.
    """
    top, bottom, left, right = _box(height, width, pixels.shape[1], fit)
    inside = pixels[None, :, top:bottom, left:right]
    grey = np.empty((1, *inside.shape[2:]), dtype=np.float32)
    curved = np.empty((1, *(max(side - 2, 0) for side in inside.shape[2:])), dtype=np.float32)
    return (*map(float, _measured(inside, 1.0, grey, curved)[:, 0]), float(min(height, width)))


def by_quality(quality: Mapping[str, np.ndarray], edges: Mapping[str, tuple[float, ...]]) -> list[Grouping]:
    """Images in thirds of each property; one that is the same for all images parts none, and is left out.

    Args:
        quality: of these images, from :func:`quality_of`.
        edges: of the thirds by property, see :func:`edges_of`.
    """
    how = "Cut into thirds of the training images."
    found = []
    for name, values in quality.items():
        cut = edges.get(name, ())
        if cut:
            names = PROPERTIES[name] if len(cut) == 2 else (PROPERTIES[name][0], PROPERTIES[name][2])
            found.append(banded(name, values, cut, names, how))
    return found


def edges_of(quality: Mapping[str, np.ndarray]) -> dict[str, tuple[float, ...]]:
    """The edges of thirds by property; none where too many images are alike."""
    return {name: thirds(values) for name, values in quality.items()}


def learnt_rows(rows: np.ndarray) -> np.ndarray:
    """At most :data:`LEARNT` of the training rows, always the same."""
    return np.sort(np.random.default_rng(0).permutation(rows)[:LEARNT])


def _box(height: int, width: int, size: int, fit: Fit) -> tuple[int, int, int, int]:
    if fit == "resize":
        return 0, size, 0, size
    rows, columns = inner_box(height, width, size)
    return rows.start, rows.stop, columns.start, columns.stop


def _measured(pixels: np.ndarray, white: float, grey: np.ndarray, curved: np.ndarray) -> np.ndarray:
    """Sharpness, contrast and brightness of ``[B, C, H, W]`` pixels: ``[3, B]``; the last two arguments are written over."""
    if pixels.shape[1] == 1:
        np.copyto(grey, pixels[:, 0])
    else:
        np.einsum("bcyx,c->byx", pixels, _GREY, out=grey, casting="same_kind")
    brightness, contrast = _centre(grey)
    sharpness = np.zeros(len(grey))
    if curved.size:  # a line has no inside
        np.multiply(grey[:, 1:-1, 1:-1], -4, out=curved)
        for beside in (grey[:, :-2, 1:-1], grey[:, 2:, 1:-1], grey[:, 1:-1, :-2], grey[:, 1:-1, 2:]):
            curved += beside
        sharpness = _centre(curved)[1] ** 2
    return np.stack([sharpness / white**2, contrast / white, brightness / white])


def _centre(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each of ``[B, H, W]``, from which the mean is then taken away."""
    flat = values.reshape(len(values), -1)
    middle = flat.mean(axis=1)
    flat -= middle[:, None]
    return middle.astype(np.float64), np.sqrt(np.einsum("bn,bn->b", flat, flat) / flat.shape[1], dtype=np.float64)
