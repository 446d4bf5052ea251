"""Weight selection: a small network starts from some of the weights of a large one of its family.

After Xu et al., "Initializing Models with Larger Ones" (2024), in three steps:

1. Layers. In each stage, each of the ``w`` small blocks takes one of the ``W`` large ones. A first block built otherwise
   than those behind it (it downsamples or widens) stays the first; only blocks of equal structure, that is of equal
   tensors and strides, stand in for one another. A Swin block's shift belongs to its place and does not count.
2. Components. Within a block, tensors of the same name belong together.
3. Elements. Every dimension of ``W`` channels gives ``w`` of them: see :func:`pick_elements`.

The channels that a residual stream adds up must be the same everywhere, and so must those of a block's hidden layer,
its norms and its depthwise kernels. Here the choice depends on ``(W, w)`` alone, and a group of channels has one
width wherever it appears, so it is the same by construction. Two groups that happen to share ``(W, w)`` share the
choice as well, random ones too: each is still the same everywhere, which is all that is needed.

Attention. A width ``W`` of heads times dimensions is chosen from like any other, in queries, keys and values alike.
``consecutive`` takes whole heads where both networks have heads of one size; ``uniform`` with step 2, as in the paper,
makes each small head of every other dimension of two large ones, and ``random`` mixes all heads. Networks with heads
of different sizes can be cut too, but no head then stays whole.

Unlike the paper, which leaves ConvNeXt's last norm out because its name begins with ``head``, every norm is transferred.
The final classifier alone keeps its initial weights. Nothing is rescaled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from timm.layers import GluMlp, LayerScale
from timm.layers.grn import GlobalResponseNorm
from timm.layers.mixed_conv2d import MixedConv2d
from timm.models._efficientnet_blocks import ConvBnAct, DepthwiseSeparableConv, EdgeResidual, InvertedResidual
from timm.models.convnext import ConvNeXt, ConvNeXtBlock
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, WindowAttention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from stillroom.errors import UsageError
from stillroom.models.network import Network

Layers = Literal["first", "uniform", "last"]
Elements = Literal["uniform", "consecutive", "random", "complement"]

_DIMENSIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"(cls|dist|reg)_token$|pos_embed$", ("batch", "tokens", "channels")),
    (r"attn\.relative_position_bias_table$", ("window offsets", "heads")),
    (r"attn\.qkv\.(weight|bias)$", ("q, k, v channels", "channels")),
    (r"downsample\.norm\.(weight|bias)$", ("channels of 4 pixels",)),
    (r"downsample\.reduction\.weight$", ("channels", "channels of 4 pixels")),
    (r"", ("channels", "channels", "kernel rows", "kernel columns")),
)
"""What a tensor's dimensions are called: the first row whose pattern is found in its name counts.

A tensor of fewer dimensions (a bias, a norm, a linear layer) has the first names of its row.
"""

_PARTS = {"channels": 1, "heads": 1, "q, k, v channels": 3, "channels of 4 pixels": 4}
"""Dimensions that are cut, and how many equal parts lie behind one another in them; all others must agree.

Each part is cut by itself: of q, k and v in one tensor of ``3W`` rows, the first ``3w`` would be queries alone. For a
uniform choice with a whole step both readings are the same.
"""

# MobileNetV2 is an EfficientNet in timm, AutoFormerV2 a SwinTransformer. Other networks use the same blocks, but between
# them concatenate channels (MobileViT) or mix resolutions (HRNet).
_FAMILIES = (VisionTransformer, SwinTransformer, ConvNeXt, ResNet, EfficientNet, MobileNetV3)
_FAMILY_NAMES = "ViT, DeiT, DINOv2, Swin, AutoFormerV2, ConvNeXt, ResNet, MobileNetV2, MobileNetV3 and EfficientNet"
_BLOCKS = (
    *(Block, SwinTransformerBlock, ConvNeXtBlock, BasicBlock, Bottleneck),
    *(ConvBnAct, DepthwiseSeparableConv, InvertedResidual, EdgeResidual),
)

# What may own weights. In any other module a channel may depend on its neighbours, so that a cut would break it.
_LAYERS = (
    *(nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm, GlobalResponseNorm, LayerScale),
    *(VisionTransformer, WindowAttention, ConvNeXtBlock),
)


@dataclass(frozen=True)
class Selection:
    """What :func:`select_weights` did. Names are those of the small backbone's tensors.

    Attributes:
        copied: filled from the large network.
        initial: left as they were: the classifier's.
        layers: per stage, the number of the large block that each small one was filled from, e.g.
            ``{"layers.2.blocks": (0, 1, 2)}``.
    """

    copied: tuple[str, ...]
    initial: tuple[str, ...]
    layers: dict[str, tuple[int, ...]]


def select_weights(
    large: Network, small: Network, *, layers: Layers = "first", elements: Elements = "uniform", seed: int = 0
) -> Selection:
    """Fill ``small`` with weights of ``large``, except for its classifier; it takes over the normalisation too.

    Known are ViT, DeiT, DINOv2, Swin, AutoFormerV2, ConvNeXt, ResNet, MobileNetV2, MobileNetV3 and EfficientNet, with
    plain blocks. Linear layers and 1x1 convolutions stand in for one another, as ConvNeXt's sizes differ in them.

    Args:
        large: left as it is.
        small: of the same family, no deeper and no wider; changed in place, or not at all where this raises.
        layers: which blocks of a stage, see :func:`pick_layers`.
        elements: which channels, see :func:`pick_elements`. The paper's default is ``uniform``.
        seed: of ``random``.

    Raises:
        UsageError: an unknown choice, a network of another kind, or two that do not match; the message names the
            first tensor that does not.
    """
    for what, given, known in (("Layers", layers, get_args(Layers)), ("Elements", elements, get_args(Elements))):
        if given not in known:
            raise UsageError(f"{what} to select are {', '.join(known)}; got {given!r}.")
    for network in (large, small):
        _check_kind(network)
    try:
        chosen = _choose_blocks(large.backbone, small.backbone, layers)
        pairs = _pair(large.backbone, small.backbone, chosen)
        source, target = large.backbone.state_dict(), small.backbone.state_dict()
        cut = {key: _cut(source[pairs[key]], target[key].shape, key, elements, seed) for key in pairs}
    except _Mismatch as error:
        advice = "Choose two of one family, the large one no shallower and no narrower."
        if error.dimension in ("tokens", "window offsets") and large.input_size != small.input_size:
            (height, width), (large_height, large_width) = small.input_size, large.input_size
            advice = f"They take images of {height}x{width} and {large_height}x{large_width} pixels: build both for one size."
        raise UsageError(f"{small.name} cannot be cut out of {large.name}: {error}. {advice}") from None
    with torch.no_grad():
        for key, value in cut.items():
            target[key].copy_(value)
    small.normalise_by(large.normalisation)
    return Selection(tuple(cut), tuple(key for key in target if key not in cut), chosen)


def pick_layers(depth: int, wanted: int, layers: Layers) -> list[int]:
    """``wanted`` of ``depth`` blocks, ascending from 0: the first, the last, or ``round(linspace(0, depth - 1, wanted))``."""
    if layers == "uniform":
        return _spread(depth, wanted).tolist()
    start = 0 if layers == "first" else depth - wanted
    return list(range(start, start + wanted))


def pick_elements(width: int, wanted: int, elements: Elements, seed: int = 0) -> np.ndarray:
    """``wanted`` of ``width`` channels, 1 to all of them: ``[wanted]`` int64, ascending from 0.

    ``uniform`` takes every s-th where ``width = s * wanted``, else ``round(linspace(0, width - 1, wanted))``;
    ``consecutive`` the first; ``random`` any, the same for equal ``(seed, width, wanted)``; ``complement`` what
    ``uniform`` leaves, every s-th from 1. Where ``uniform`` leaves more than wanted they are thinned out evenly;
    where it leaves fewer, evenly spread ones of its own are added, so that both together still hold every channel.
    """
    if wanted == width or elements == "consecutive":
        return np.arange(wanted)
    if elements == "random":
        return np.sort(np.random.default_rng([seed, width, wanted]).permutation(width)[:wanted])
    taken = np.arange(wanted) * (width // wanted) if width % wanted == 0 else _spread(width, wanted)
    if elements == "uniform":
        return taken
    left = np.setdiff1d(np.arange(width), taken)
    if len(left) >= wanted:
        return left[pick_elements(len(left), wanted, "uniform")]
    return np.union1d(left, taken[pick_elements(wanted, wanted - len(left), "uniform")])


class _Mismatch(Exception):
    """Why two networks do not match; ``dimension`` is the one that differs, if any."""

    def __init__(self, why: str, dimension: str | None = None) -> None:
        super().__init__(why)
        self.dimension = dimension


def _spread(count: int, wanted: int) -> np.ndarray:
    return np.round(np.linspace(0, count - 1, wanted)).astype(np.int64)


def _check_kind(network: Network) -> None:
    """Raises UsageError where the order of some channels means more than their names tell."""
    if not isinstance(network.backbone, _FAMILIES) or not _stages(network.backbone):
        raise UsageError(
            f"Weights cannot be selected in {network.name}: it is not made like those that are known, {_FAMILY_NAMES}. "
            "Choose one of these."
        )
    for name, module in network.backbone.named_modules():
        kind = type(module).__name__
        if isinstance(module, nn.Conv2d) and module.groups not in (1, module.in_channels):
            found = f"a convolution in {module.groups} groups"
        elif isinstance(module, nn.Conv2d) and module.groups > 1 and module.out_channels != module.in_channels:
            found = "a depthwise convolution that multiplies channels"
        elif not isinstance(getattr(module, "q_norm", nn.Identity()), nn.Identity):
            found = "attention that normalises within heads"
        elif isinstance(module, (GluMlp, MixedConv2d)):
            found = f"a {kind}, whose channels come in groups"
        elif next(module.parameters(recurse=False), None) is not None and not isinstance(module, _LAYERS):
            found = f"a {kind}, whose channels are not known"
        else:
            continue
        raise UsageError(f"Weights cannot be selected in {network.name}: {name} is {found}. Choose another network.")


def _stages(backbone: nn.Module) -> dict[str, list[nn.Module]]:
    """The blocks of each stage, by the name of what holds them."""
    found = {}
    for name, module in backbone.named_modules():
        blocks = list(module.children())
        if any(type(block) in _BLOCKS for block in blocks):
            found[name] = blocks
    return found


def _structure(block: nn.Module) -> tuple[object, ...]:
    shapes = [(key, value.shape) for key, value in block.state_dict().items()]
    strides = [module.stride for module in block.modules() if isinstance(module, nn.Conv2d)]
    return type(block), shapes, strides


def _choose_blocks(large: nn.Module, small: nn.Module, layers: Layers) -> dict[str, tuple[int, ...]]:
    """Per stage that both have, the large blocks to take."""
    chosen, stages = {}, _stages(large)
    for stage, blocks in _stages(small).items():
        if stage not in stages:
            continue  # its tensors are missed by name
        structures, wanted = [_structure(block) for block in stages[stage]], len(blocks)
        depth = len(structures)
        if wanted > depth:
            raise _Mismatch(f"{stage} has {wanted} blocks in the small one, {depth} in the large one")
        fixed = int(structures[0] != structures[-1])
        odd = [number for number in range(fixed, depth) if structures[number] != structures[fixed]]
        if odd and wanted < depth:
            raise _Mismatch(
                f"{stage} has {wanted} blocks in the small one, {depth} in the large one, and none can be left out: "
                f"blocks {fixed} and {odd[0]} differ in structure"
            )
        free = pick_layers(depth - fixed, wanted - fixed, layers)
        chosen[stage] = (*range(fixed), *(fixed + number for number in free))
    return chosen


def _pair(large: nn.Module, small: nn.Module, chosen: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """The large tensor's name for each small one, classifiers left out."""
    source, pairs = _names(large), {}
    counts = len(_stages(small)), len(_stages(large))
    stages = f" (stages of blocks: {counts[0]} against {counts[1]})" if counts[0] != counts[1] else ""
    for key in _names(small):
        pairs[key] = key
        for stage, numbers in chosen.items():
            if key.startswith(f"{stage}."):
                number, _, rest = key.removeprefix(f"{stage}.").partition(".")
                pairs[key] = f"{stage}.{numbers[int(number)]}.{rest}"
        if pairs[key] not in source:
            raise _Mismatch(f"{key} stands in the small one alone{stages}")
    left_out = tuple(
        f"{stage}.{number}."
        for stage, numbers in chosen.items()
        for number in range(len(_stages(large)[stage]))
        if number not in numbers
    )
    used = set(pairs.values())
    for key in source:
        if key not in used and not key.startswith(left_out):
            raise _Mismatch(f"{key} stands in the large one alone{stages}")
    return pairs


def _names(backbone: nn.Module) -> list[str]:
    """The names of all tensors but the classifier's, or the classifiers' of a distilled DeiT."""
    found = backbone.get_classifier()  # type: ignore[operator]
    ends = found if isinstance(found, tuple) else (found,)
    heads = tuple(f"{name}." for name, module in backbone.named_modules() if any(module is end for end in ends))
    return [key for key in backbone.state_dict() if not key.startswith(heads)]


def _cut(wide: Tensor, shape: torch.Size, key: str, elements: Elements, seed: int) -> Tensor:
    """The part of ``wide`` that fills a tensor of ``shape``."""
    if wide.ndim == 2 and len(shape) == 4:  # linear layers are 1x1 convolutions
        wide = wide[:, :, None, None]
    elif wide.shape[2:] == (1, 1) and len(shape) == 2:
        wide = wide[:, :, 0, 0]
    if wide.ndim != len(shape):
        raise _Mismatch(f"{key} has {len(shape)} dimensions in the small one, {wide.ndim} in the large one")
    names = next(names for pattern, names in _DIMENSIONS if re.search(pattern, key))
    for dimension, (size, wanted) in enumerate(zip(wide.shape, shape, strict=True)):
        if size == wanted:
            continue
        name = names[dimension]
        if name not in _PARTS or wanted > size:
            raise _Mismatch(f"{key} has {wanted} {name} in the small one, {size} in the large one", name)
        parts = _PARTS[name]
        part = pick_elements(size // parts, wanted // parts, elements, seed)
        index = np.concatenate([number * (size // parts) + part for number in range(parts)])
        wide = wide.index_select(dimension, torch.from_numpy(index).to(wide.device))
    return wide
