"""ResNets for images of about 28 to 64 pixels: a 3x3 stem that keeps the resolution, and no max-pooling.

MedMNIST's published 28-pixel baselines are these networks (Yang et al., Scientific Data, 2023), after the
CIFAR variant of He et al. (2016). At 28 px an ImageNet ResNet is down to a single position by its last stage.
"""

from __future__ import annotations

import timm
from torch import nn


def resnet18_28(classes: int, input_size: tuple[int, int]) -> nn.Module:
    """ResNet-18 for small images; any ``input_size`` from 8 px."""
    return _small("resnet18", classes)


def resnet50_28(classes: int, input_size: tuple[int, int]) -> nn.Module:
    """ResNet-50 for small images; any ``input_size`` from 8 px."""
    return _small("resnet50", classes)


def _small(name: str, classes: int) -> nn.Module:
    network = timm.create_model(name, num_classes=classes)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network
