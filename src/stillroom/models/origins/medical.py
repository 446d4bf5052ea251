"""Teachers of the medical catalogue: built from what it says of them, so that no config has to be fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
from torch import nn

from stillroom.errors import UsageError
from stillroom.models import hub
from stillroom.models.conch import Conch
from stillroom.models.medical import MedicalTeacher
from stillroom.models.medical import medical as entry_of
from stillroom.models.network import Network
from stillroom.models.origins import open_clip_tower, timm_models, transformers_backbone
from stillroom.models.origins.base import Origin, Provenance
from stillroom.models.origins.preprocessing import refuse_keywords
from stillroom.models.origins.publication import Publication
from stillroom.models.origins.timm_repository import WEIGHTS
from stillroom.models.specification import Size, Specification


@dataclass(frozen=True)
class Medical(Origin):
    """A network by its entry.

    Args:
        name: the user's.
        entry: what is known of it.
        arguments: keywords of its constructor that the user gave.
    """

    name: str
    entry: MedicalTeacher
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def specification(self) -> Specification:
        entry = self.entry
        family = entry.architecture
        if entry.loader in ("timm", "open_clip"):
            family = timm.models.model_entrypoint(entry.architecture).__module__.rsplit(".", 1)[-1]
        return Specification(
            native_size=entry.size,
            # Asked for no other side, a teacher works at its own, though its positions can be resampled.
            fixed_size=True,
            normalisation=entry.normalisation,
            family=family,
            hub=entry.repository,
            licence=entry.licence,
            features="cls" if entry.features == "own" else entry.features,
        )

    @cached_property
    def _described(self) -> Origin | None:
        """What its library's own origin makes of such settings as the publisher has; None for timm's networks and ours."""
        entry, publication = self.entry, Publication(self.name, (self.entry.repository or "", None))
        if entry.loader == "transformers":
            config = {"model_type": entry.architecture, **entry.arguments}
            return transformers_backbone.TransformersBackbone(self.name, config, {}, publication)
        if entry.loader == "open_clip":
            model = {"embed_dim": 1, "vision_cfg": entry.arguments}  # the projection is left out, whatever its width
            return open_clip_tower.tower(self.name, {"model_cfg": model}, publication, {})
        return None

    @property
    def reads_all_weights(self) -> bool:
        return self._described is None

    def build(self, classes: int | None, input_size: Size) -> nn.Module:
        count = classes or 0
        if self.entry.loader == "timm":
            # timm builds for its own side unless told, and the entry's may be another.
            told = replace(self.specification, native_size=0)
            keywords = {**self.entry.arguments, **self.arguments}
            return timm_models.build(self.entry.architecture, self.name, told, keywords, count, input_size)
        refuse_keywords(self.name, self.arguments)
        return Conch(count, input_size) if self._described is None else self._described.build(count, input_size)

    def locate(self) -> Path:
        entry = self.entry
        if entry.repository is None:
            what = entry.source.partition(":")[2]
            raise UsageError(f"{self.name} has no repository. Bring {what}, and give it with --weights.")
        if self._described is not None:
            return self._described.locate()
        return Publication(self.name, (entry.repository, None)).weights(entry.files or WEIGHTS)

    def fill(self, network: Network, file: Path, name: str) -> None:
        if self._described is None:
            super().fill(network, file, name)
        else:
            self._described.fill(network, file, name)

    def provenance(self, file: Path | None) -> Provenance:
        entry = self.entry
        if file or entry.repository is None:
            return Provenance(str(file or entry.source), None, entry.licence)
        return Provenance(entry.repository, hub.commit_of(entry.repository), entry.licence)


def of_catalogue(name: str, base: str, arguments: Mapping[str, Any]) -> Medical | None:
    """The catalogue's network of that name; None where it has none."""
    entry = entry_of(base)
    return None if entry is None else Medical(name, entry, arguments)
