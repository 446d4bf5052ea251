"""Names of networks, for people: a short list worth starting from, and a search over everything timm has.

Importing this module imports neither torch nor timm, so that help and completion stay quick.
"""

from __future__ import annotations

from fnmatch import fnmatch
from importlib.util import find_spec

from stillroom.errors import UsageError, nearest
from stillroom.models.medical import MEDICAL
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


def short_list() -> list[str]:
    """The names worth starting from: teachers first, then students."""
    return list(dict.fromkeys([*TEACHERS, *STUDENTS]))


def names() -> list[str]:
    """Every name that can be built, ours, timm's and those of the medical catalogue, sorted."""
    import timm

    buildable = [entry.name for entry in MEDICAL if entry.loader != "transformers" or find_spec("transformers")]
    return sorted([*OWN, *buildable, *timm.list_models()])


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
