"""Networks that timm knows by name, and how timm's constructors are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import timm
from timm import layers
from torch import nn

from stillroom.errors import UsageError, nearest
from stillroom.models import hub
from stillroom.models.catalogue import names
from stillroom.models.normalisation import Normalisation
from stillroom.models.origins.base import Origin, Provenance, no_published_weights
from stillroom.models.specification import Size, Specification

FILES = ("model.safetensors", "pytorch_model.bin")
"""What the file of weights is called in the repositories of timm's list."""
_CLASSES_BY_NAME = ("mlp_layer", "act_layer", "norm_layer", "attn_layer", "block_fn", "embed_layer")
"""Keywords that take a class of torch or timm, here given by its name."""


@dataclass(frozen=True)
class TimmModel(Origin):
    """A network of timm's, with or without its tag.

    Args:
        name: timm's.
        arguments: more keywords for its constructor.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def specification(self) -> Specification:
        name, architecture = self.name, self.name.split(".")[0]
        if not timm.is_model(architecture):
            there = f" There is a folder of that name here: write ./{name}." if Path(name).is_dir() else ""
            raise UsageError(f"No network is called {name}.{there or nearest(name, names())} See `stillroom models`.")
        config = timm.models.get_pretrained_cfg(name, allow_unregistered=False) if _tag_known(name) else None
        if config is None:
            tagged = [known for known in timm.list_pretrained() if known.split(".")[0] == architecture]
            raise UsageError(f"{architecture} is published as {', '.join(tagged) or 'nothing'}; there is no {name}.")
        return Specification(
            native_size=config.input_size[-1],
            fixed_size=config.fixed_input_size and not self.arguments.get("dynamic_img_size"),
            normalisation=Normalisation(tuple(config.mean), tuple(config.std)),
            family=timm.models.model_entrypoint(architecture).__module__.rsplit(".", 1)[-1],
            hub=str(config.hf_hub_id or config.url or "") or None,
            licence=config.license,
        )

    @property
    def reads_all_weights(self) -> bool:
        return True

    def build(self, classes: int | None, input_size: Size) -> nn.Module:
        return build(self.name, self.name, self.specification, self.arguments, classes, input_size)

    def provenance(self, file: Path | None) -> Provenance:
        source = self.specification.hub
        if file or source is None or source.startswith("http"):
            return super().provenance(file)
        return Provenance(source, hub.commit_of(source), self.specification.licence)

    def locate(self) -> Path:
        source = self.specification.hub
        if source is None:
            raise no_published_weights(self.name)
        if source.startswith("https://"):
            return hub.fetch(self.name, source)
        return hub.fetch_any(self.name, source, FILES)  # some stand with their authors, in other forms


def build(
    architecture: str,
    name: str,
    spec: Specification,
    arguments: Mapping[str, Any],
    classes: int | None,
    input_size: Size,
) -> nn.Module:
    """What timm makes of an architecture and keywords.

    Args:
        architecture: timm's name of it.
        name: the user's, for errors.
        spec: of the network.
        arguments: keywords of its constructor; classes of torch and timm by their names.
        classes: see :meth:`Origin.build`.
        input_size: height and width in pixels.

    Raises:
        UsageError: a keyword that its constructor does not take, or a value that it cannot use.
    """
    given = {key: _class(key, value) for key, value in arguments.items()}
    given |= {} if classes is None else {"num_classes": classes}
    if spec.fixed_size and input_size != (spec.native_size, spec.native_size):
        given["img_size"] = input_size
    try:
        return timm.create_model(architecture, **given)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        if not arguments:
            raise
        told = ", ".join(f"{key}={value}" for key, value in arguments.items())
        raise UsageError(f"{name} cannot be built with {told}: {str(error).splitlines()[0]}.") from error


def _class(key: str, value: Any) -> Any:
    if key not in _CLASSES_BY_NAME or not isinstance(value, str):
        return value
    found = getattr(layers, value, None) or getattr(nn, value, None)
    if not isinstance(found, type | partial):  # SwiGLUPacked is a class with arguments
        raise UsageError(f"{key}={value}: neither timm.layers nor torch.nn has a class of that name.")
    return found


def _tag_known(name: str) -> bool:
    return "." not in name or name in timm.list_pretrained()
