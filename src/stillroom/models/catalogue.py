"""Names of networks, for people: a short list worth starting from, and a search over everything timm has.

Importing this module imports neither torch nor timm, so that help and completion stay quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch

from stillroom.errors import UsageError, nearest
from stillroom.models.ofa_space import PREFIX, config_of

TEACHERS = (
    "vit_small_patch14_dinov2",
    "vit_base_patch14_dinov2",
    "vit_large_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch14_reg4_dinov2",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "swin_tiny_patch4_window7_224",
    "convnext_tiny",
    "visformer_small",
    "autoformerv2_tiny",
    "vgg19_bn",
    "densenet161",
    "densenet201",
    "resnet50",
    "seresnet50",
    "efficientnet_b0",
)
"""Networks to learn from."""

STUDENTS = (
    "resnet10t_050",
    "resnet10t",
    "mobilenetv3_small_050",
    "mobilenetv3_small_075",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "mobilenetv2_050",
    "mobilenetv2_100",
    "mobilenet_edgetpu_100",
    "efficientnet_lite0",
    "mobilevitv2_050",
    "resnet18",
    "resnet50",
    "skresnet50",
    "seresnet50",
    "resnet18_28",
    "resnet50_28",
    "vit_tiny_patch16_224",
    "convnext_femto",
    "visformer_tiny",
    "mobilenetv4_conv_small",
    "mobilenetv4_conv_small_050",
    "efficientnet_b0",
    "ofa595",
)
"""Networks to teach."""

OWN = (
    "autoformerv2_tiny",
    "autoformerv2_small",
    "autoformerv2_base",
    "resnet10t_050",
    "resnet18_28",
    "resnet50_28",
    "ofa595",
)
"""Networks that timm does not have."""


@dataclass(frozen=True)
class ModelCard:
    """One network at a glance.

    Attributes:
        name: what `--teacher` and `--student` take.
        family: the kind of network, by timm's module, e.g. ``mobilenetv3``.
        role: ``teacher``, ``student``, ``teacher, student``, or empty outside the short list.
        native_size: side of the image it was made for, in pixels.
        parameters: millions, with the classifier it was published with unless a number of classes was given.
        megabytes: its parameters' size as float32.
        pretrained: whether timm's hub has weights for it.
        size: side in pixels of the images that the next two are of.
        macs: millions of multiply-accumulates for one image; None where the network takes no images of that size.
        latency_ms: median milliseconds for one image on this machine; None where it was not measured.
    """

    name: str
    family: str
    role: str
    native_size: int
    parameters: float
    megabytes: float
    pretrained: bool
    size: int
    macs: float | None
    latency_ms: float | None = None


def short_list() -> list[str]:
    """The names worth starting from: teachers first, then students."""
    return list(dict.fromkeys([*TEACHERS, *STUDENTS]))


def names() -> list[str]:
    """Every name that can be built, ours and timm's, sorted."""
    import timm

    return sorted([*OWN, *timm.list_models()])


def find(pattern: str) -> list[str]:
    """Names that match a glob such as ``mobilenetv3*``, sorted. Raises UsageError where there is none.

    The networks of the OFA space are too many to search; a full name stands for itself.
    """
    known = names()
    found = [name for name in known if fnmatch(name, pattern)]
    if not found and pattern.startswith(PREFIX):
        if any(sign in pattern for sign in "*?["):
            raise UsageError(
                f"No network is called {pattern!r}. Of the OFA space, full names are found, and what is within a "
                "budget (--max-mb, --max-ms)."
            )
        return [config_of(pattern).name]
    if not found:
        raise UsageError(f"No network is called {pattern!r}.{nearest(pattern.strip('*'), known)}")
    return found


def describe(wanted: list[str], *, size: int | None = None, classes: int | None = None) -> list[ModelCard]:
    """A card for each name. Networks are laid out without memory, a fraction of a second each.

    Args:
        wanted: names of networks.
        size: side in pixels of the images to count multiply-accumulates for. Default: each network's own.
        classes: of the classifier. Default: as published.

    Raises:
        UsageError: an unknown name, or a size or number of classes below 1.
    """
    for flag, value in (("--size", size), ("--classes", classes)):
        if value is not None and value < 1:
            raise UsageError(f"{flag} must be at least 1, got {value}.")
    import torch

    from stillroom.macs import count_macs
    from stillroom.models.zoo import check_size, outline, specification

    cards = []
    for name in wanted:
        spec = specification(name)
        side = spec.native_size if size is None else size
        try:
            check_size(name, side)
            takes = True
        except UsageError:
            side, takes = spec.native_size, False
        network = outline(name, side, classes)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        macs = count_macs(network, torch.empty(1, 3, side, side, device="meta"))
        roles = [role for role, listed in (("teacher", TEACHERS), ("student", STUDENTS)) if name in listed]
        cards.append(
            ModelCard(
                name=name,
                family=spec.family,
                role=", ".join(roles),
                native_size=spec.native_size,
                parameters=round(parameters / 1e6, 2),
                megabytes=round(4 * parameters / 1e6, 3),
                pretrained=spec.hub is not None,
                size=side if size is None else size,
                macs=round(macs / 1e6, 1) if takes else None,
            )
        )
    return cards
