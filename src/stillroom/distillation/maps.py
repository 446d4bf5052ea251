"""Bring a student's last feature map to a teacher's shape: what objectives on maps share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, int, int]
"""``(C, H, W)`` of a feature map."""


def to_grid(found: Tensor, grid: tuple[int, int]) -> Tensor:
    """``[B, C, H, W]`` at the height and width ``grid``: averaged where it shrinks, bilinear where it grows."""
    height, width = found.shape[-2:]
    if height >= grid[0] and width >= grid[1]:
        return F.adaptive_avg_pool2d(found, grid)
    return F.interpolate(found, grid, mode="bilinear", align_corners=False)


class MapRegressor(nn.Module):
    """A 1x1 convolution from the student's last feature map to a teacher's shape, trained with the student.

    Args:
        student: shape of the student's map.
        teacher: shape of the teacher's.
        rectified: end in batch norm and ReLU, as CA-MKD does; else in the convolution, as FitNets do.
    """

    def __init__(self, student: Shape, teacher: Shape, *, rectified: bool) -> None:
        super().__init__()
        self.grid = teacher[1:]
        self.conv = nn.Conv2d(student[0], teacher[0], 1, bias=not rectified)
        self.norm = nn.BatchNorm2d(teacher[0]) if rectified else None

    def forward(self, found: Tensor) -> Tensor:
        """``[B, C_S, H_S, W_S]`` to ``[B, C_T, H_T, W_T]``."""
        matched = self.conv(to_grid(found.float(), self.grid))
        if self.norm is None:
            return matched
        if matched.shape[0] * matched.shape[2] * matched.shape[3] > 1:
            return F.relu(self.norm(matched))
        # One value per channel has no variance: the running statistics stand in for the batch's.
        norm = self.norm
        return F.relu(F.batch_norm(matched, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps))


@contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Modules built inside the block get their initial weights from the seed; the random state is put back after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
