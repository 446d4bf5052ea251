"""Pictures as disks: what a disk cut out of a picture shows, in numbers that no turn and no mirror changes.

A disk is sampled on rings, and each ring is taken apart into circular harmonics ``c[r, m]``. Turning the picture turns their
phase and mirroring conjugates them, so that their sizes ``|c|`` stay (rotation-invariant descriptors as of Zernike moments,
Khotanzad and Hong 1990). Every step from thumbnail to harmonics is linear: one matrix per disk serves all pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

SIDE = 32
"""Of thumbnails, in pixels."""

RINGS, ORDERS = 8, 9
_ANGLES = 64
_FINE, _COARSE = 1.0, 4.0  # blurs of the band-pass, in pixels of a picture that shows the disk's square alone
_PIXEL = 1 / 12  # variance of what one pixel averages over
_TURNS = 128  # angles at which two disks are compared


@dataclass(frozen=True)
class Disk:
    """The disk in a square that is cut out of a thumbnail: centre (down, right) and half the side, in pixels."""

    down: float
    right: float
    half: float


WHOLE = Disk((SIDE - 1) / 2, (SIDE - 1) / 2, SIDE / 2)

SHARES = ((0.95, 2), (0.88, 3), (0.80, 4), (0.72, 5))
"""Squares that are looked for: share of the side, and how many places along each side."""


def crops() -> tuple[Disk, ...]:
    """The whole picture, and the squares cut out of it that are compared with whole pictures: 55 in all."""
    found = [WHOLE]
    for share, places in SHARES:
        room = SIDE * (1 - share)
        moves = (np.arange(places) - (places - 1) / 2) * room / places
        found += [
            Disk(WHOLE.down + float(down), WHOLE.right + float(right), WHOLE.half * share)
            for down in moves
            for right in moves
        ]
    return tuple(found)


def harmonics(thumbnails: np.ndarray, disk: Disk) -> np.ndarray:
    """``[N, 32, 32]`` thumbnails to ``[N, 8, 9]`` complex64: rings by orders 0 to 8, band-passed."""
    flat = thumbnails.reshape(-1, SIDE * SIDE).astype(np.float32)
    operator = _operator(disk)
    return (flat @ operator.real + 1j * (flat @ operator.imag)).reshape(-1, RINGS, ORDERS)


def amplitude(found: np.ndarray) -> np.ndarray:
    """``[N]``: root mean square of what the disk shows after the band-pass, in grey levels."""
    return np.sqrt(2 * (_weights() * np.square(np.abs(found)).sum(axis=1)).sum(axis=1) / RINGS)


def invariants(found: np.ndarray) -> np.ndarray:
    """``[N, 72]`` float32 of unit length: alike for a picture that is turned, mirrored, darker or paler."""
    sizes = np.abs(found).astype(np.float32)
    sizes[:, :, 0] = found[:, :, 0].real  # of order 0 the sign stays too
    sizes = sizes.reshape(len(sizes), -1)
    return sizes / np.maximum(np.linalg.norm(sizes, axis=1, keepdims=True), 1e-6)


def turned(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How the first disks must be turned to look like the second, ``[P, 8, 9]`` each.

    Returns:
        The angle ``[P]`` in radians, whether it is mirrored first ``[P]``, and the correlation then ``[P]``.
    """
    angles = 2 * np.pi * np.arange(_TURNS) / _TURNS
    waves = np.exp(-1j * np.outer(np.arange(ORDERS), angles)) * _weights()[:, None]
    plain = (first.conj() * second).sum(axis=1) @ waves
    mirrored = (first * second).sum(axis=1) @ waves
    both = np.concatenate([plain.real, mirrored.real], axis=1)
    best = both.argmax(axis=1)
    norms = np.maximum(_norm(first) * _norm(second), 1e-9)
    return angles[best % _TURNS], best >= _TURNS, both[np.arange(len(both)), best] / norms


def _norm(found: np.ndarray) -> np.ndarray:
    return np.sqrt((_weights() * np.square(np.abs(found)).sum(axis=1)).sum(axis=1))


def _weights() -> np.ndarray:
    """Of orders: those above 0 stand for two, of either sign."""
    return np.where(np.arange(ORDERS) == 0, 0.5, 1.0).astype(np.float32)


@cache
def _operator(disk: Disk) -> np.ndarray:
    """``[1024, 72]`` complex64 from a thumbnail to the disk's harmonics."""
    share = disk.half / WHOLE.half
    radii = (np.arange(RINGS) + 0.7) / RINGS * disk.half
    angles = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
    down = _between(disk.down + radii[:, None] * np.sin(angles))
    right = _between(disk.right + radii[:, None] * np.cos(angles))
    waves = np.exp(-1j * np.outer(angles, np.arange(ORDERS))) / _ANGLES
    # A square cut out and enlarged is less sharp than a whole picture: its pixels have averaged over more.
    fine = np.sqrt(max(share**2 * (_FINE**2 + _PIXEL) - _PIXEL, 0.04))
    found = np.zeros((RINGS, SIDE, SIDE * ORDERS), np.complex128)
    for sigma, sign in ((fine, 1), (_COARSE * share, -1)):
        around = ((right @ blur(sigma))[..., None] * waves[:, None]).reshape(RINGS, _ANGLES, -1)
        found += sign * ((down @ blur(sigma)).transpose(0, 2, 1) @ around)
    by_area = np.sqrt(radii / radii.mean())[:, None, None]
    rings = (found * by_area).reshape(RINGS, SIDE * SIDE, ORDERS).transpose(1, 0, 2)
    return rings.reshape(SIDE * SIDE, -1).astype(np.complex64)


def _between(places: np.ndarray) -> np.ndarray:
    """``[..., 32]`` weights of the pixels of one side that give what lies at ``places`` in pixels."""
    return np.maximum(1 - np.abs(places.clip(0, SIDE - 1)[..., None] - np.arange(SIDE)), 0)


@cache
def blur(sigma: float) -> np.ndarray:
    """``[32, 32]`` matrix that blurs along one side of a thumbnail, borders reflected."""
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(np.eye(SIDE), sigma, axis=0)
