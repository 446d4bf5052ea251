"""Names of networks, for people: a short list worth starting from, and a search over everything timm has.

Importing this module imports neither torch nor timm, so that help and completion stay quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal

from stillroom.errors import UsageError, nearest

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
        parameters: millions, with the classifier it was published with.
        megabytes: its parameters' size as float32.
        pretrained: whether timm's hub has weights for it.
    """

    name: str
    family: str
    role: str
    native_size: int
    parameters: float
    megabytes: float
    pretrained: bool


def available() -> list[ModelCard]:
    """The short list: teachers first, then students. Takes a few seconds (torch and timm are loaded)."""
    return describe(list(dict.fromkeys([*TEACHERS, *STUDENTS])))


def names() -> list[str]:
    """Every name that can be built, ours and timm's, sorted."""
    import timm

    return sorted([*OWN, *timm.list_models()])


def find(pattern: str) -> list[str]:
    """Names that match a glob such as ``mobilenetv3*``, sorted. Raises UsageError where there is none."""
    known = names()
    found = [name for name in known if fnmatch(name, pattern)]
    if not found:
        raise UsageError(f"No network is called {pattern!r}.{nearest(pattern.strip('*'), known)}")
    return found


def describe(wanted: list[str]) -> list[ModelCard]:
    """A card for each name. Networks are laid out without memory, a fraction of a second each."""
    from stillroom.models.zoo import outline, specification

    cards = []
    for name in wanted:
        spec = specification(name)
        parameters = sum(parameter.numel() for parameter in outline(name).parameters())
        role: list[Literal["teacher", "student"]] = []
        if name in TEACHERS:
            role.append("teacher")
        if name in STUDENTS:
            role.append("student")
        cards.append(
            ModelCard(
                name=name,
                family=spec.family,
                role=", ".join(role),
                native_size=spec.native_size,
                parameters=round(parameters / 1e6, 2),
                megabytes=round(4 * parameters / 1e6, 1),
                pretrained=spec.hub is not None,
            )
        )
    return cards
