"""The networks of the once-for-all search space (Cai et al., ICLR 2020), OFA-595 among them, with timm's methods."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.models.ofa_space import Block, OfaConfig

DROPOUT = 0.2
"""Before the classifier, as the authors trained."""


class Ofa(nn.Module):
    """A MobileNetV3 with the blocks that ``config`` names.

    ``forward_features`` gives the map ``[B, C, H', W']`` before global pooling, C 960 or 1152; ``forward_head`` pools
    it and widens it to the 1280 or 1536 features that the classifier sees. Any input of at least 1 px.

    Args:
        config: kernels, expansions and width.
        classes: of the classifier, at least 1.
    """

    def __init__(self, config: OfaConfig, classes: int) -> None:
        super().__init__()
        blocks = config.blocks()
        self.stem = _convolution(3, config.stem, 3, stride=2, act=nn.Hardswish())
        self.blocks = nn.Sequential(*(InvertedResidual(block) for block in blocks))
        self.final = _convolution(blocks[-1].outputs, config.final, 1, act=nn.Hardswish())
        self.mix = nn.Conv2d(config.final, config.mix, 1, bias=False)
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(config.mix, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, images: Tensor) -> Tensor:
        """Normalised images ``[B, 3, H, W]`` to the last feature map."""
        return self.final(self.blocks(self.stem(images)))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """The last feature map to logits ``[B, K]``, or to what the classifier sees."""
        pooled = F.hardswish(self.mix(features.mean((2, 3), keepdim=True))).flatten(1)
        pooled = self.dropout(pooled)
        return pooled if pre_logits else self.classifier(pooled)

    def get_classifier(self) -> nn.Linear:
        return self.classifier

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images ``[B, 3, H, W]`` to logits ``[B, K]``."""
        return self.forward_head(self.forward_features(images))


class InvertedResidual(nn.Module):
    """Expand, convolve depthwise, weigh the channels, project; added to the input where shapes agree."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.residual = block.residual
        act = nn.Hardswish if block.hard_swish else nn.ReLU
        expands = block.middle != block.inputs
        self.expand = _convolution(block.inputs, block.middle, 1, act=act()) if expands else nn.Identity()
        self.depthwise = _convolution(
            block.middle, block.middle, block.kernel, stride=block.stride, groups=block.middle, act=act()
        )
        self.se = SqueezeExcitation(block.middle, block.squeeze) if block.squeeze else nn.Identity()
        self.project = _convolution(block.middle, block.outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        changed = self.project(self.se(self.depthwise(self.expand(features))))
        return features + changed if self.residual else changed


class SqueezeExcitation(nn.Module):
    """Weighs channels by their means over the map (Hu et al., 2018), with a hard sigmoid as in MobileNetV3."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        means = features.mean((2, 3), keepdim=True)
        return features * F.hardsigmoid(self.expand(F.relu(self.reduce(means))))


def _convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, act: nn.Module | None = None
) -> nn.Sequential:
    """Convolution that keeps the size but for its stride, batch norm and, where given, an activation."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    layers["bn"] = nn.BatchNorm2d(outputs)
    if act is not None:
        layers["act"] = act
    return nn.Sequential(layers)
