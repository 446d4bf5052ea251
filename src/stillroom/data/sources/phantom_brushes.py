"""Brushes for the phantoms: soft edges, noise, lines and blur on square float canvases."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.random import Generator

SIDE = 128
"""Height and width of every phantom, in pixels."""


def smooth_noise(rng: Generator, cells: tuple[int, ...]) -> np.ndarray:
    """Noise ``[SIDE, SIDE]`` of about unit spread: an octave for each number of cells along a side."""
    octaves = [upsample(rng.standard_normal((count, count), np.float32)) for count in cells]
    return np.float32(1.5 / len(cells) ** 0.5) * sum(octaves[1:], octaves[0])


def draw_strokes(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Points along lines, shared between their four pixels; ``[SIDE, SIDE]``, about 1 on a line, at most 1.5."""
    base_row, base_column = np.floor(rows).astype(int), np.floor(columns).astype(int)
    part_row, part_column = rows - base_row, columns - base_column
    canvas = np.zeros(SIDE * SIDE)
    for down, share_row in ((0, 1 - part_row), (1, part_row)):
        for right, share_column in ((0, 1 - part_column), (1, part_column)):
            row, column = base_row + down, base_column + right
            inside = (row >= 0) & (row < SIDE) & (column >= 0) & (column < SIDE)
            share = (share_row * share_column)[inside]
            canvas += np.bincount(row[inside] * SIDE + column[inside], share, SIDE * SIDE)
    return np.minimum(canvas, 1.5).astype(np.float32).reshape(SIDE, SIDE)


def curve(start: tuple[float, float], end: tuple[float, float], sag: float) -> tuple[np.ndarray, np.ndarray]:
    """Points of a bent line between two points of the body, ``sag`` off the straight one in its middle."""
    t = np.linspace(0, 1, 2 * SIDE)
    bow = 4 * sag * t * (1 - t)
    return start[0] + (end[0] - start[0]) * t + bow, start[1] + (end[1] - start[1]) * t + 0.5 * bow


def step(value: np.ndarray, softness: float) -> np.ndarray:
    """0 to 1 as ``value`` passes zero, over about four times ``softness``."""
    return 0.5 + 0.5 * np.tanh(value / np.float32(softness))


def bump(value: np.ndarray, width: float) -> np.ndarray:
    """A Gaussian of height 1 around zero."""
    return np.exp(-((value / np.float32(width)) ** 2))


def plate(phase: np.ndarray) -> np.ndarray:
    """Flat bands of period 1 with brighter edges, as ribs show: two sheets of cortical bone around marrow."""
    wave = np.cos(np.float32(2 * np.pi) * phase)
    return np.clip(2.5 * (wave - 0.15), 0, 1) - 0.35 * np.clip(2.5 * (wave - 0.6), 0, 1)


def blur(canvas: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur with ``sigma`` in pixels."""
    rows, columns = np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE)
    response = np.exp(-2 * (np.pi * sigma) ** 2 * (rows[:, None] ** 2 + columns**2)).astype(np.float32)
    return np.fft.irfft2(np.fft.rfft2(canvas) * response, s=canvas.shape)


def upsample(cells: np.ndarray) -> np.ndarray:
    """A small square array to ``[SIDE, SIDE]`` float32, smoothly."""
    weights = _upsampling(len(cells))
    return weights @ cells.astype(np.float32) @ weights.T


@cache
def _upsampling(cells: int) -> np.ndarray:
    """``[SIDE, cells]`` weights of a smooth interpolation."""
    position = np.linspace(0, cells - 1, SIDE)
    distance = np.abs(position[:, None] - np.arange(cells)).clip(0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * distance)).astype(np.float32)


@cache
def grid() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns ``[SIDE, SIDE]`` float32 of a film, from -1 to 1."""
    line = ((np.arange(SIDE) + 0.5) * 2 / SIDE - 1).astype(np.float32)
    rows, columns = np.meshgrid(line, line, indexing="ij")
    return rows, columns
