"""Networks that timm lacks: ours, and every point of the OFA space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from stillroom.models import hub
from stillroom.models.autoformer_v2 import autoformerv2_base, autoformerv2_small, autoformerv2_tiny
from stillroom.models.catalogue import OWN
from stillroom.models.normalisation import HALF, IMAGENET
from stillroom.models.ofa import Ofa
from stillroom.models.ofa_space import PREFIX as OFA_PREFIX
from stillroom.models.ofa_space import config_of
from stillroom.models.origins.base import Origin, no_published_weights
from stillroom.models.resnets import resnet10t_050, resnet18_28, resnet50_28
from stillroom.models.specification import Size, Specification


@dataclass(frozen=True)
class BuiltIn(Origin):
    """A network of this package."""

    name: str
    known: Specification
    make: Callable[[int, Size], nn.Module]

    @property
    def specification(self) -> Specification:
        return self.known

    def build(self, classes: int | None, input_size: Size) -> nn.Module:
        return self.make(1000 if classes is None else classes, input_size)

    def locate(self) -> Path:
        source = self.known.hub
        if source is None:
            raise no_published_weights(self.name)
        return hub.fetch(self.name, source)


_SMALL_RESNET = Specification(28, False, HALF, "resnet", None)
_SLIM_RESNET = Specification(176, False, IMAGENET, "resnet", None)


def _autoformer(variant: str) -> Specification:
    # timm's hub has the authors' weights, under the names of timm's own build of these networks.
    return Specification(224, True, IMAGENET, "autoformer_v2", f"timm/swin_s3_{variant}_224.ms_in1k")


_BUILT_IN = (
    BuiltIn("autoformerv2_tiny", _autoformer("tiny"), autoformerv2_tiny),
    BuiltIn("autoformerv2_small", _autoformer("small"), autoformerv2_small),
    BuiltIn("autoformerv2_base", _autoformer("base"), autoformerv2_base),
    BuiltIn("resnet10t_050", _SLIM_RESNET, resnet10t_050),
    BuiltIn("resnet18_28", _SMALL_RESNET, resnet18_28),
    BuiltIn("resnet50_28", _SMALL_RESNET, resnet50_28),
)
assert {*(one.name for one in _BUILT_IN), "ofa595"} == set(OWN)


def built_in(name: str) -> BuiltIn | None:
    """One of :data:`~stillroom.models.catalogue.OWN` or a point of the OFA space; None for any other name."""
    if name != "ofa595" and not name.startswith(OFA_PREFIX):
        return next((one for one in _BUILT_IN if one.name == name), None)
    config = config_of(name)
    spec = Specification(config.resolution, False, IMAGENET, "ofa", None)
    return BuiltIn(name, spec, lambda classes, input_size: Ofa(config, classes))
