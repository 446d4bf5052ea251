"""Networks by name, timm's and our own: at the size wanted, from a seed, pretrained or not."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from stillroom.errors import UsageError
from stillroom.models.blank import build_blank
from stillroom.models.network import Network, Precision
from stillroom.models.normalisation import Normalisation
from stillroom.models.origins import origin_again, origin_of
from stillroom.models.origins.base import Origin, Provenance
from stillroom.models.specification import Says, Size, Specification
from stillroom.models.taps import FeatureKind, classifiers
from stillroom.models.weights import find_weights
from stillroom.settings.network_names import NetworkName, parse, side_told

DINOV2_SIZE = 224
"""DINOv2's last training phase ran at 518 px; its published probes, and those of the papers here, use 224."""


_FIRST_LOGITS = 0.1
"""Standard deviation of an untrained head's logits, where the features it reads have a mean square of 1."""


def create(
    name: str,
    *,
    classes: int,
    size: int | None = None,
    pretrained: bool = False,
    weights: Path | None = None,
    seed: int = 0,
    features: FeatureKind | None = None,
    normalisation: Normalisation | None = None,
    attention: bool = False,
    feature_layers: int = 1,
    precision: Precision = "32",
) -> Network:
    """Build a network.

    Args:
        name: see :mod:`~stillroom.models.origins`.
        classes: ``K``.
        size: side of the square input in pixels. Default: see :func:`native_size`.
        pretrained: start from pretrained weights: from ``weights`` where given, else from timm's hub.
        weights: a file or folder, see :func:`~stillroom.models.weights.find_weights`; read if ``pretrained``.
        seed: decides every weight that is not pretrained. The global random state is left alone.
        features: what the classifier sees of a transformer, see :class:`~stillroom.models.network.Network`.
        normalisation: overrides the network's own and the one that a file of weights states.
        attention: weigh the last feature map by spatial attention; its weights are random, from the seed.
        feature_layers: how many of a transformer's last blocks the classifier sees.
        precision: ``bf16`` holds the backbone in bfloat16, see :meth:`~stillroom.models.network.Network.hold_in_bf16`.

    Raises:
        UsageError: an unknown name, a size it cannot take, weights that are not there or do not fit.
    """
    spec = specification(name)
    if classes < 1:
        raise UsageError(f"A network needs at least one class, got {classes}.")
    file = locate_weights(name, weights) if pretrained else None
    size = spec.native_size if size is None else size
    check_size(name, size)
    # The CPU's generator alone: torch.manual_seed would also reseed every accelerator.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        # The head is drawn below and all else is read; attention is drawn where the backbone's drawing ended.
        blank = file is not None and spec.says == "features" and not attention
        network = _network(origin_of(name), name, classes, (size, size), features, attention, feature_layers, blank)
        if precision == "bf16":
            if spec.brings_weights:
                raise UsageError(f"{name} comes in a precision of its own: leave out --teacher-precision.")
            network.hold_in_bf16()
        if spec.says == "features":
            _start_undecided(network, seed)
    if file is not None:
        origin_of(name).fill(network, file, parse(name).base)
        if precision == "bf16":
            network.hold_in_bf16()  # again: some put another body in its place
    if file is not None or spec.brings_weights:
        network.start = "pretrained"
    if normalisation is not None:
        network.normalise_by(normalisation)
    return network


def locate_weights(name: str, weights: Path | None) -> Path | None:
    """The file of a network's pretrained weights: in ``weights`` where given, else fetched; None where it brings them.

    Raises:
        UsageError: there is none, or the hub cannot be reached.
    """
    if specification(name).brings_weights:
        return None
    return origin_of(name).locate() if weights is None else find_weights(weights, parse(name).base)


def provenance(name: str, weights: Path | None) -> Provenance:
    """Whose weights a pretrained network has; see :func:`locate_weights`."""
    return origin_of(name).provenance(weights)


def restore(
    name: str,
    *,
    classes: int,
    input_size: Size,
    features: FeatureKind | None,
    feature_layers: int = 1,
    attention: bool = False,
    published: dict[str, Any] | None = None,
) -> Network:
    """The network to load a saved one's weights into; its own weights are random, or whatever lay in memory.

    Args:
        name: see :func:`create`, as the other arguments.
        classes: ``K``.
        input_size: height and width in pixels.
        features: what the classifier sees of a transformer.
        feature_layers: of how many of its blocks.
        attention: whether it has spatial attention.
        published: see :class:`~stillroom.models.network.Network`; with it, no repository or folder is asked.
    """
    origin = origin_again(name, published) if published else origin_of(name)
    with torch.random.fork_rng(devices=[]):
        return _network(origin, name, classes, input_size, features, attention, feature_layers, blank=True)


def specification(name: str) -> Specification:
    """What is known of ``name`` before it is built. Raises UsageError for a name that nobody knows."""
    return _as_told(name, origin_of(name).specification)


def _as_told(name: str, known: Specification) -> Specification:
    """What is known of a network, with what its name says of it."""
    told = parse(name)
    changed: dict[str, Any] = {}
    if "outputs" in told.options:
        changed["says"] = told.options["outputs"]
        if changed["says"] not in get_args(Says):
            raise UsageError(f"{name}: outputs is {', '.join(get_args(Says))}; got {changed['says']!r}.")
    if "classes" in told.options:
        changed["classes"] = told.listed("classes")
    if side := side_told(told):
        changed["native_size"] = side
    if "mean" in told.options or "std" in told.options:
        changed["normalisation"] = _stated(name, told, known.normalisation)
    return replace(known, **changed)


def native_size(name: str) -> int:
    """Side in pixels of the image that a network was made for."""
    return specification(name).native_size


def resolve_size(name: str, wanted: int | None, default: int) -> int:
    """Side in pixels of a network's input: ``wanted``, else its own where that is fixed, else ``default``.

    DINOv2 takes any multiple of 14 pixels and gets :data:`DINOV2_SIZE` unless asked otherwise.

    Raises:
        UsageError: the network cannot take that size.
    """
    spec = specification(name)
    if wanted is not None:
        size = wanted
    elif "dinov2" in name and spec.family == "vision_transformer":  # others state what they are used at
        size = DINOV2_SIZE
    else:
        size = spec.native_size if spec.fixed_size else default
    check_size(name, size)
    return size


@cache
def check_size(name: str, size: int) -> None:
    """Raises UsageError where a network cannot take square images of ``size`` pixels, naming some it can."""
    spec = specification(name)
    if size == spec.native_size:
        return
    if size < 1:
        raise UsageError(f"The input size of {name} must be at least 1 pixel, got {size}.")
    if spec.family in ("own", "onnx"):
        raise UsageError(f"{name} takes images of {spec.native_size} pixels, as it came; {size} is another size.")
    patch = _patch_size(outline(name))
    if size % patch:
        below, above = size // patch * patch, (size // patch + 1) * patch
        fitting = f"{below} or {above}" if below else f"{above}"
        raise UsageError(f"{name} takes images of a multiple of {patch} pixels; {size} is none. Nearest: {fitting}.")
    if not _runs(name, size):
        near = [near for near in (size // 32 * 32, size // 32 * 32 + 32) if near and _runs(name, near)]
        fitting = " or ".join(str(side) for side in dict.fromkeys([*near, spec.native_size]))
        raise UsageError(
            f"{name} cannot take images of {size} pixels, but it takes {fitting}. "
            "Give such a size or choose another network."
        )


def _runs(name: str, size: int) -> bool:
    try:
        with torch.no_grad():
            outline(name, size)(torch.empty(1, 3, size, size, device="meta"))
    except (
        RuntimeError,
        AssertionError,
        TypeError,
        ValueError,
        ZeroDivisionError,
    ):  # each family refuses in its own way
        return False
    return True


def outline(name: str, size: int | None = None, classes: int | None = None) -> nn.Module:
    """The backbone in evaluation mode on the meta device: shapes and names without memory or computation.

    It has the classifier it was published with, unless a number of classes is given.
    """
    side = native_size(name) if size is None else size
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _backbone(name, classes, (side, side)).eval()


def _network(
    origin: Origin,
    name: str,
    classes: int,
    input_size: Size,
    features: FeatureKind | None,
    attention: bool,
    feature_layers: int,
    blank: bool,
) -> Network:
    """``blank`` leaves the backbone's weights undrawn where they can be, see :mod:`stillroom.models.blank`."""
    spec = _as_told(name, origin.specification)

    def build() -> nn.Module:
        return origin.build(classes if spec.says == "features" else None, input_size)

    network = Network(
        build_blank(build) if blank and origin.reads_all_weights else build(),
        name=name,
        classes=classes,
        input_size=input_size,
        normalisation=spec.normalisation,
        features=features,
        feature_layers=feature_layers,
        attention=attention,
    )
    network.published = origin.published
    return network


def _start_undecided(network: Network, seed: int) -> None:
    """Draw the head so small that the first answers are undecided and the first loss is ln K, whatever the network.

    timm's MobileNets and EfficientNets draw theirs as wide as their 1,000 classes wanted it: with 4 classes the logits start
    with a deviation of 3 to 7, and a short training unlearns that before it learns anything.
    """
    generator = torch.Generator().manual_seed(seed)  # its own, so that the head is the same with attention and without
    for layer in classifiers(network.backbone):
        weight: Any = layer.weight
        nn.init.normal_(weight, std=_FIRST_LOGITS / math.sqrt(weight[0].numel()), generator=generator)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def _backbone(name: str, classes: int | None, input_size: Size) -> nn.Module:
    """``classes`` None keeps the number it was published with (1000 for our own)."""
    return origin_of(name).build(classes, input_size)


def _stated(name: str, told: NetworkName, own: Normalisation) -> Normalisation:
    """The normalisation that the name states; one number stands for all three channels."""
    found = []
    for option, usual in (("mean", own.mean), ("std", own.std)):
        try:
            values = tuple(float(part) for part in told.listed(option)) or usual
        except ValueError:
            raise UsageError(f"{name}: {option} is one number or three, got {told.options[option]!r}.") from None
        found.append(values * 3 if len(values) == 1 else values)
    return Normalisation(*found)


def _patch_size(backbone: nn.Module) -> int:
    """Side of a transformer's patches in pixels; 1 for networks without."""
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", 1)
    return int(patch[0] if isinstance(patch, tuple) else patch)
