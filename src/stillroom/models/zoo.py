"""Networks by name, timm's and our own: at the size wanted, from a seed, pretrained or not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from stillroom.errors import UsageError, nearest
from stillroom.models import hub
from stillroom.models.autoformer_v2 import autoformerv2_base, autoformerv2_small, autoformerv2_tiny
from stillroom.models.catalogue import OWN, names
from stillroom.models.network import Network
from stillroom.models.normalisation import HALF, IMAGENET, Normalisation
from stillroom.models.ofa import Ofa
from stillroom.models.ofa_space import PREFIX as OFA_PREFIX
from stillroom.models.ofa_space import config_of
from stillroom.models.resnets import resnet10t_050, resnet18_28, resnet50_28
from stillroom.models.taps import FeatureKind, classifiers
from stillroom.models.weights import find_weights, load_weights

Size = tuple[int, int]

DINOV2_SIZE = 224
"""DINOv2's last training phase ran at 518 px; its published probes, and those of the papers here, use 224."""


_FIRST_LOGITS = 0.1
"""Standard deviation of an untrained head's logits, where the features it reads have a mean square of 1."""


@dataclass(frozen=True)
class Specification:
    """What is known of a network before it is built.

    Attributes:
        native_size: side of the image it was made for, in pixels.
        fixed_size: whether its weights depend on the input size (position embeddings, windows).
        normalisation: its own.
        family: the kind of network, by module.
        hub: its repository or address in timm's hub; None where there are no published weights.
    """

    native_size: int
    fixed_size: bool
    normalisation: Normalisation
    family: str
    hub: str | None


@dataclass(frozen=True)
class _OwnModel:
    build: Callable[[int, Size], nn.Module]
    specification: Specification


_SMALL_RESNET = Specification(28, False, HALF, "resnet", None)
_SLIM_RESNET = Specification(176, False, IMAGENET, "resnet", None)


def _autoformer(variant: str) -> Specification:
    # timm's hub has the authors' weights, under the names of timm's own build of these networks.
    return Specification(224, True, IMAGENET, "autoformer_v2", f"timm/swin_s3_{variant}_224.ms_in1k")


_OWN_MODELS = {
    "autoformerv2_tiny": _OwnModel(autoformerv2_tiny, _autoformer("tiny")),
    "autoformerv2_small": _OwnModel(autoformerv2_small, _autoformer("small")),
    "autoformerv2_base": _OwnModel(autoformerv2_base, _autoformer("base")),
    "resnet10t_050": _OwnModel(resnet10t_050, _SLIM_RESNET),
    "resnet18_28": _OwnModel(resnet18_28, _SMALL_RESNET),
    "resnet50_28": _OwnModel(resnet50_28, _SMALL_RESNET),
}
assert {*_OWN_MODELS, "ofa595"} == set(OWN)


def _own(name: str) -> _OwnModel | None:
    """A network that timm does not have: one of ours, or a point of the OFA space; None for timm's."""
    if name != "ofa595" and not name.startswith(OFA_PREFIX):
        return _OWN_MODELS.get(name)
    config = config_of(name)
    return _OwnModel(
        lambda classes, input_size: Ofa(config, classes), Specification(config.resolution, False, IMAGENET, "ofa", None)
    )


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
) -> Network:
    """Build a network.

    Args:
        name: one of timm's, with or without its tag, one of :data:`~stillroom.models.catalogue.OWN`, or a network of
            the OFA space, see :mod:`~stillroom.models.ofa_space`.
        classes: ``K``.
        size: side of the square input in pixels. Default: see :func:`native_size`.
        pretrained: start from pretrained weights: from ``weights`` where given, else from timm's hub.
        weights: a file or folder, see :func:`~stillroom.models.weights.find_weights`; read if ``pretrained``.
        seed: decides every weight that is not pretrained. The global random state is left alone.
        features: what the classifier sees of a transformer, see :class:`~stillroom.models.network.Network`.
        normalisation: overrides the network's own and the one that a file of weights states.
        attention: weigh the last feature map by spatial attention; its weights are random, from the seed.

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
        network = _network(name, classes, (size, size), features, attention)
        _start_undecided(network, seed)
    if file is not None:
        load_weights(network, file, name)
        network.start = "pretrained"
    if normalisation is not None:
        network.normalise_by(normalisation)
    return network


def locate_weights(name: str, weights: Path | None) -> Path:
    """The file of a network's pretrained weights: in ``weights`` where given, else fetched from timm's hub.

    Raises:
        UsageError: there is none, or the hub cannot be reached.
    """
    if weights is not None:
        return find_weights(weights, name)
    source = specification(name).hub
    if source is None:
        raise UsageError(
            f"timm's hub has no weights for {name}. Give --weights with a file or folder that holds "
            "some, or start from random weights."
        )
    return hub.fetch(name, source)


def restore(
    name: str, *, classes: int, input_size: Size, features: FeatureKind | None, attention: bool = False
) -> Network:
    """The network to load a saved one's weights into; its own weights are random."""
    with torch.random.fork_rng(devices=[]):
        return _network(name, classes, input_size, features, attention)


def specification(name: str) -> Specification:
    """What is known of ``name`` before it is built. Raises UsageError for a name that nobody knows."""
    own = _own(name)
    if own is not None:
        return own.specification
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        raise UsageError(f"No network is called {name}.{nearest(name, names())} See `stillroom models`.")
    config = timm.models.get_pretrained_cfg(name, allow_unregistered=False) if _tag_known(name) else None
    if config is None:
        tagged = [known for known in timm.list_pretrained() if known.split(".")[0] == architecture]
        raise UsageError(f"{architecture} is published as {', '.join(tagged) or 'nothing'}; there is no {name}.")
    return Specification(
        native_size=config.input_size[-1],
        fixed_size=config.fixed_input_size,
        normalisation=Normalisation(tuple(config.mean), tuple(config.std)),
        family=timm.models.model_entrypoint(architecture).__module__.rsplit(".", 1)[-1],
        hub=str(config.hf_hub_id or config.url or "") or None,
    )


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
    elif "dinov2" in name:
        size = DINOV2_SIZE
    else:
        size = spec.native_size if spec.fixed_size else default
    check_size(name, size)
    return size


@cache
def check_size(name: str, size: int) -> None:
    """Raises UsageError where a network cannot take square images of ``size`` pixels, naming some it can."""
    native = native_size(name)
    if size == native:
        return
    if size < 1:
        raise UsageError(f"The input size of {name} must be at least 1 pixel, got {size}.")
    patch = _patch_size(outline(name))
    if size % patch:
        below, above = size // patch * patch, (size // patch + 1) * patch
        fitting = f"{below} or {above}" if below else f"{above}"
        raise UsageError(f"{name} takes images of a multiple of {patch} pixels; {size} is none. Nearest: {fitting}.")
    if not _runs(name, size):
        near = [near for near in (size // 32 * 32, size // 32 * 32 + 32) if near and _runs(name, near)]
        fitting = " or ".join(str(side) for side in dict.fromkeys([*near, native]))
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


def _network(name: str, classes: int, input_size: Size, features: FeatureKind | None, attention: bool) -> Network:
    return Network(
        _backbone(name, classes, input_size),
        name=name,
        classes=classes,
        input_size=input_size,
        normalisation=specification(name).normalisation,
        features=features,
        attention=attention,
    )


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
    own = _own(name)
    if own is not None:
        return own.build(1000 if classes is None else classes, input_size)
    spec = specification(name)
    arguments: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if spec.fixed_size and input_size != (spec.native_size, spec.native_size):
        arguments["img_size"] = input_size
    return timm.create_model(name, **arguments)


def _patch_size(backbone: nn.Module) -> int:
    """Side of a transformer's patches in pixels; 1 for networks without."""
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", 1)
    return int(patch[0] if isinstance(patch, tuple) else patch)


def _tag_known(name: str) -> bool:
    return "." not in name or name in timm.list_pretrained()
