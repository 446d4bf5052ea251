"""Networks that stand in a repository of the hub, or in a folder, in timm's form: config.json beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
from torch import nn

from stillroom.errors import UsageError, nearest
from stillroom.models.normalisation import Normalisation
from stillroom.models.origins import timm_models
from stillroom.models.origins.base import Origin, Provenance
from stillroom.models.origins.publication import Publication
from stillroom.models.specification import Size, Specification
from stillroom.models.stored import INDICES

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "model.pth", *INDICES)
"""What the file of weights may be called, in the order looked for."""
_OURS = ("num_classes", "img_size", "pretrained", "in_chans")
"""Keywords that the published config may hold, and that Stillroom decides."""


@dataclass(frozen=True)
class TimmRepository(Origin):
    """A network by its config.

    Args:
        name: the user's.
        config: what config.json holds: ``architecture``, and where they are stated ``model_args``, ``pretrained_cfg``.
        arguments: keywords that the config lacks.
        publication: the repository or folder.
    """

    name: str
    config: Mapping[str, Any]
    arguments: Mapping[str, Any]
    publication: Publication

    @cached_property
    def specification(self) -> Specification:
        architecture = self.config.get("architecture")
        if not isinstance(architecture, str) or not timm.is_model(architecture.split(".")[0]):
            raise UsageError(
                f"{self.name}: its config.json names the architecture {architecture!r}, which timm {timm.__version__} does "
                f"not know.{nearest(str(architecture), timm.list_models())}"
            )
        found = timm_models.TimmModel(architecture.split(".")[0]).specification
        stated = self.config.get("pretrained_cfg") or self.config
        side = stated.get("input_size", (3, found.native_size, found.native_size))[-1]
        mean, std = stated.get("mean"), stated.get("std")
        own = Normalisation(tuple(mean), tuple(std)) if mean and std else found.normalisation
        return replace(
            found,
            native_size=int(side),
            fixed_size=bool(stated.get("fixed_input_size", found.fixed_size))
            and not self._keywords.get("dynamic_img_size"),
            normalisation=own,
            hub=self.publication.repository,
            licence=stated.get("license"),
            classes=tuple(stated.get("label_names") or ()),
        )

    @property
    def _keywords(self) -> dict[str, Any]:
        published = self.config.get("model_args") or {}
        return {key: value for key, value in published.items() if key not in _OURS} | dict(self.arguments)

    @property
    def published(self) -> dict[str, Any]:
        return {CONFIG: dict(self.config)}

    @property
    def reads_all_weights(self) -> bool:
        return True

    def build(self, classes: int | None, input_size: Size) -> nn.Module:
        spec = self.specification
        published = self.config.get("num_classes", (self.config.get("pretrained_cfg") or {}).get("num_classes"))
        count = published if classes is None else classes
        native = timm_models.TimmModel(self.config["architecture"].split(".")[0]).specification.native_size
        # The side that timm builds for unless told is its own, whatever the repository states.
        shown = replace(spec, native_size=native)
        return timm_models.build(self.config["architecture"], self.name, shown, self._keywords, count, input_size)

    def locate(self) -> Path:
        return self.publication.weights(WEIGHTS)

    def provenance(self, file: Path | None) -> Provenance:
        found = self.publication.provenance(file)
        return replace(found, licence=self.specification.licence or found.licence)


def read(name: str, publication: Publication, arguments: Mapping[str, Any]) -> TimmRepository:
    """The network of a repository or folder. Raises UsageError where its config.json is none of timm's."""
    return of_config(name, publication.settings(CONFIG), publication, arguments)


def of_config(
    name: str, config: Mapping[str, Any], publication: Publication, arguments: Mapping[str, Any]
) -> TimmRepository:
    """The same by a config that was read already."""
    if "architecture" not in config:
        hint = " It looks like one of transformers': write hf: in front instead." if "model_type" in config else ""
        raise UsageError(f"{name}: its config.json names no architecture of timm's.{hint}")
    return TimmRepository(name, config, arguments, publication)


def read_config(name: str, folder: Path) -> dict[str, Any]:
    """The folder's config.json. Raises UsageError where there is none, or it is not an object in JSON."""
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = "there is no such folder" if not folder.is_dir() else f"config.json cannot be read ({error.strerror})"
        raise UsageError(
            f"{name}: {reason}. A network in a folder is a config.json beside its weights, as timm and the hub have them."
        ) from None
    except ValueError as error:
        raise UsageError(f"{file} is not valid JSON ({error}).") from None
    if not isinstance(config, dict):
        raise UsageError(f"{file} holds no settings by name.")
    return config
