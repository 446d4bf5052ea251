"""Laying one picture on another: the map of the plane under which they agree best, and how well they then agree.

A fit maps places of the second picture to places of the first: ``[2, 3]``, in pixels of thumbnails, counted from the middle
of the second. It is refined by Gauss-Newton steps (Lucas and Kanade 1981, with six numbers of an affine map).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from stillroom.data.disks import SIDE, WHOLE, Disk, blur

_MIDDLE = (SIDE - 1) / 2
_LARGEST_STEP = 1.5  # pixels at the border
_RIDGE = 1e-3
_FINE, _COARSE = 1.0, 4.0


def first_fit(disks: list[Disk], angles: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """``[P, 2, 3]`` fits from disks of the first pictures, ``P`` of them, and what :func:`~.disks.turned` found."""
    cos, sin = np.cos(angles), np.sin(angles)
    turn = np.stack([np.stack([cos, sin], axis=1), np.stack([-sin, cos], axis=1)], axis=1)
    turn[:, 0] *= np.where(mirrored, -1.0, 1.0)[:, None]
    shares = np.array([disk.half / WHOLE.half for disk in disks])
    centres = np.array([[disk.down, disk.right] for disk in disks])
    return np.concatenate([turn * shares[:, None, None], centres[:, :, None]], axis=2).astype(np.float32)


def passed(pictures: np.ndarray) -> np.ndarray:
    """``[..., 32, 32]`` float32, without shading and without noise."""
    fine, coarse = (blur(sigma).astype(np.float32) for sigma in (_FINE, _COARSE))
    pictures = pictures.astype(np.float32)
    return fine @ pictures @ fine.T - coarse @ pictures @ coarse.T


def laid(pictures: np.ndarray, fits: np.ndarray, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The first pictures ``[P, 32, 32]`` where the second's pixels (every ``step``-th) are, and which of these they reach.

    Both are ``[P, S, S]`` with ``S = 32 / step``; interpolated linearly, the border repeated outside.
    """
    grid = _grid(step)
    places = grid @ fits[:, :, :2].transpose(0, 2, 1) + fits[:, None, :, 2]
    inside = ((places > -0.6) & (places < SIDE - 0.4)).all(axis=2)
    places = places.clip(0, SIDE - 1.001)
    corner = places.astype(np.int64)
    down, right = np.moveaxis((places - corner).astype(np.float32), 2, 0)
    flat = pictures.reshape(-1)
    at = corner[..., 0] * SIDE + corner[..., 1] + SIDE * SIDE * np.arange(len(pictures))[:, None]
    upper = flat[at] * (1 - right) + flat[at + 1] * right
    lower = flat[at + SIDE] * (1 - right) + flat[at + SIDE + 1] * right
    shape = (-1, SIDE // step, SIDE // step)
    return (upper * (1 - down) + lower * down).reshape(shape), inside.reshape(shape)


def coarsely(first: np.ndarray, second: np.ndarray, fits: np.ndarray, rounds: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Better fits of ``[P, 32, 32]`` band-passed pictures, and their correlation, on every second pixel of each side."""
    target = second[:, 1::2, 1::2]
    for _ in range(rounds):
        fits = _bettered(*laid(first, fits, 2), target, fits, 2)
    picture, inside = laid(first, fits, 2)
    weight = inside.reshape(len(inside), -1).astype(np.float32)
    one, two = (_unit(side.reshape(len(side), -1), weight)[1] for side in (picture, target))
    return fits, (one * two).sum(axis=1)


def finely(first: np.ndarray, second: np.ndarray, fits: np.ndarray, rounds: int = 3) -> np.ndarray:
    """Better fits of the ``[P, 32, 32]`` first pictures, band-passed once they are laid, to the second, band-passed."""
    for _ in range(rounds):
        picture, inside = laid(first, fits)
        fits = _bettered(passed(picture), inside, second, fits, 1)
    return fits


def _bettered(picture: np.ndarray, inside: np.ndarray, target: np.ndarray, fits: np.ndarray, step: int) -> np.ndarray:
    """One Gauss-Newton step from the picture as laid, ``[P, S, S]``, towards the target."""
    position = _grid(step) / (SIDE / 2)
    weight = inside.reshape(len(inside), -1).astype(np.float32)
    slopes = np.gradient(picture, step, axis=(1, 2))
    scale, shown = _unit(picture.reshape(len(picture), -1), weight)
    down, right = (slope.reshape(len(slope), -1) * weight / scale for slope in slopes)
    y, x = position.T
    moves = np.stack([down, right, down * y, right * y, down * x, right * x, shown], axis=1)
    normal = moves @ moves.transpose(0, 2, 1)
    size = np.trace(normal[:, :6, :6], axis1=1, axis2=2) / 6
    normal += (_RIDGE * size[:, None, None] + 1e-9) * np.eye(7, dtype=np.float32)
    missing = _unit(target.reshape(len(target), -1), weight)[1] - shown
    amount = np.linalg.solve(normal, moves @ missing[:, :, None])[:, :6, 0].clip(-_LARGEST_STEP, _LARGEST_STEP)
    stretch = amount[:, 2:].reshape(-1, 2, 2).transpose(0, 2, 1) / (SIDE / 2)
    linear, offset = fits[:, :, :2], fits[:, :, 2:]
    return np.concatenate(
        [linear @ (np.eye(2, dtype=np.float32) + stretch), offset + linear @ amount[:, :2, None]], axis=2
    )


def agreement(first: np.ndarray, second: np.ndarray, fits: np.ndarray, common: np.ndarray | None = None) -> np.ndarray:
    """Correlation ``[P]`` of the ``[P, 32, 32]`` pictures, the first laid on the second, band-passed, where both have pixels.

    With ``common``, ``[Q, 32, 32]`` pictures of what all of the set share, it is the partial correlation given them, as they
    lie in the one picture and in the other: what is common to all is no sign of a copy, however well it fits.
    """
    picture, inside = laid(first, fits)
    weight = inside.reshape(len(inside), -1).astype(np.float32)

    def shown(pictures: np.ndarray) -> np.ndarray:
        return _unit(np.broadcast_to(passed(pictures).reshape(-1, SIDE**2), weight.shape), weight)[1]

    sides = np.stack([shown(picture), shown(second)], axis=2)
    if common is None:
        return sides.prod(axis=2).sum(axis=1)
    there = [shown(one[None]) for one in common]
    here = [shown(laid(np.broadcast_to(one, first.shape), fits)[0]) for one in common]
    basis = np.stack([*there, *here], axis=1)
    normal = basis @ basis.transpose(0, 2, 1) + 1e-4 * np.eye(basis.shape[1], dtype=np.float32)
    rest = sides - basis.transpose(0, 2, 1) @ np.linalg.solve(normal, basis @ sides)
    norms = np.sqrt(np.square(rest).sum(axis=1)).prod(axis=1)
    return rest.prod(axis=2).sum(axis=1) / np.maximum(norms, 1e-9)


def _unit(rows: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows' lengths ``[P, 1]``, and the rows ``[P, n]`` without mean, of unit length, 0 where the weight is 0."""
    rows = (
        rows - (rows * weight).sum(axis=1, keepdims=True) / np.maximum(weight.sum(axis=1, keepdims=True), 1)
    ) * weight
    length = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return length, rows / length


@cache
def _grid(step: int) -> np.ndarray:
    """``[n, 2]`` float32: every ``step``-th pixel's place, from the middle."""
    side = np.arange(step // 2, SIDE, step) - _MIDDLE
    return np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)
