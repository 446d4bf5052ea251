"""ResNets that timm lacks: for small images, and for small devices.

``*_28`` have a 3x3 stem that keeps the resolution and no max-pooling, for images of about 28 to 64 pixels: at 28 px an
ImageNet ResNet is down to a single position by its last stage. MedMNIST's published 28-pixel baselines are these networks
(Yang et al., Scientific Data, 2023), after the CIFAR variant of He et al. (2016).

``resnet10t_050`` is timm's ResNet-10-T at half the width. Without depthwise convolutions it learns from a few hundred images
and random weights: on 680 phantoms at 64 px its test AUC was 0.94 after 12 epochs, MobileNetV2-0.35's 0.56 after 16.
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


def resnet10t_050(classes: int, input_size: tuple[int, int]) -> nn.Module:
    """ResNet-10-T of half the width, 4.9 MB in float32 with few classes; any ``input_size`` from 32 px."""
    return timm.create_model("resnet10t", num_classes=classes, stem_width=16, channels=(32, 64, 128, 256))


def _small(name: str, classes: int) -> nn.Module:
    network = timm.create_model(name, num_classes=classes)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network
