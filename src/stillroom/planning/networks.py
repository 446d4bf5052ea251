"""Which networks the plan prefers: best first, by their accuracy on ImageNet in timm's results."""

from __future__ import annotations

from typing import Protocol

STUDENTS = (
    "efficientnet_b0",
    "mobilenet_edgetpu_100",
    "mobilenetv3_large_100",
    "efficientnet_lite0",
    "mobilenetv4_conv_small",
    "mobilenetv2_100",
    "lcnet_100",
    "mobilevitv2_050",
    "mobilenetv3_small_100",
    "mobilenetv2_050",
    "mobilenetv4_conv_small_050",
    "mobilenetv3_small_075",
    "lcnet_050",
    "mobilenetv3_small_050",
)
"""Students that are worth starting from their own pretrained weights."""

SIBLINGS = (
    ("mobilenetv3_large_075", "mobilenetv3_large_100"),
    ("mobilenetv2_075", "mobilenetv2_100"),
    ("mobilenetv3_small_075", "mobilenetv3_small_100"),
    ("mobilenetv2_050", "mobilenetv2_100"),
    ("mobilenetv4_conv_small_035", "mobilenetv4_conv_small"),
    ("mobilenetv3_small_050", "mobilenetv3_small_100"),
    ("lcnet_050", "lcnet_100"),
    ("mobilenetv2_035", "mobilenetv2_100"),
    ("lcnet_035", "lcnet_050"),
)
"""A student and the larger network of its family that it can be cut out of; the largest students first."""

UNTRAINED_STUDENTS = ("resnet10t_050", "mobilenetv3_small_050", "lcnet_035")
"""Students for random weights: a small ResNet learns fastest from nothing."""

TEACHERS = (
    "vit_base_patch14_reg4_dinov2",
    "vit_base_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch14_dinov2",
    "convnext_tiny",
    "vit_small_patch16_224",
    "resnet50",
    "efficientnet_b0",
    "mobilenet_edgetpu_100",
    "mobilenetv3_large_100",
    "efficientnet_lite0",
    "mobilenetv4_conv_small",
    "mobilenetv2_100",
    "mobilenetv2_050",
)
"""Teachers with pretrained weights, strongest first."""

UNTRAINED_TEACHER = "resnet10t"
"""The teacher where no weights are at hand: fine-tuned from random ones."""

KNOWN = tuple(dict.fromkeys([*TEACHERS, *STUDENTS, *(large for _, large in SIBLINGS)]))
"""Every network whose pretrained weights the plan looks for."""

WITH_OWN_NETWORKS = frozenset({"dual_model_skd", "weckd", "ca_mkd", "linear_probe"})
"""Recipes whose student or teachers depend on one another: the plan leaves these as the recipe has them."""

SIDES = (64, 96, 128, 160, 224)
"""Sides of the student's images, in pixels."""
DINOV2_SIDES = (98, 126, 168, 224)
"""DINOv2 takes multiples of 14 pixels."""


class Networks(Protocol):
    """What :class:`~stillroom.planning.stock.Shelf` answers."""

    def megabytes(self, name: str) -> float:
        """Its float32 parameters."""
        ...

    def native(self, name: str) -> int:
        """Side of the images that it was made for."""
        ...

    def trains(self, name: str) -> bool:
        """Whether it can be fine-tuned."""
        ...

    def takes(self, name: str, side: int) -> bool:
        """Whether it takes images of that side."""
        ...


def rounded_up(side: int) -> int:
    """The next of the sides that is not smaller; the largest where none is."""
    return next((listed for listed in SIDES if listed >= side), SIDES[-1])
