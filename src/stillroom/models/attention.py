"""Spatial attention: one weight in (0, 1) for each place of the last feature map (Woo et al. 2018, CBAM; WeCKD 2025)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """``A(F) = sigmoid(conv7x7([mean_c F; max_c F]))``: where the network looks, learnt with it.

    Args:
        kernel: side of the convolution, odd.
    """

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, 1, H, W]`` in (0, 1)."""
        return torch.sigmoid(self.conv(torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)))
