"""Image towers of open_clip: ``open_clip:OWNER/NAME[@revision]``, or a folder with open_clip_config.json.

The tower alone is built, without the text's. What is seen of an image are the tower's features before they are projected into
the space that they share with text. A tower that is a network of timm's is built by timm; open_clip is needed for its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import timm
from torch import Tensor, nn

from stillroom.errors import UsageError, nearest
from stillroom.models.network import Network
from stillroom.models.normalisation import Normalisation
from stillroom.models.origins import timm_models
from stillroom.models.origins.base import Origin, Provenance
from stillroom.models.origins.preprocessing import TOLD, is_three, refuse_keywords
from stillroom.models.origins.publication import Publication, read_published
from stillroom.models.origins.tokens import Anatomy, TokenBackbone, first_token
from stillroom.models.specification import Size, Specification
from stillroom.models.weights import load_state

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
"""What the file of weights may be called, in the order looked for."""

_TOWER, _TRUNK = "visual.", "visual.trunk."
_ANATOMY = Anatomy(
    "transformer.resblocks",
    "ln_1",
    "ln_post",
    ("conv1", "class_embedding", "positional_embedding", "ln_pre"),
    "class_embedding",
)


@dataclass(frozen=True)
class Tower(Origin):
    """An image tower by its config.

    Args:
        name: the user's.
        config: what open_clip_config.json holds.
        publication: where the weights are.
        told: the options of the name.
    """

    name: str
    config: Mapping[str, Any]
    publication: Publication
    told: Mapping[str, str]
    reads_all_weights: ClassVar[bool] = True

    @property
    def published(self) -> dict[str, Any]:
        return {CONFIG: dict(self.config)}

    @property
    def vision(self) -> Mapping[str, Any]:
        """What the config says of the tower."""
        return _vision(self.name, self.config)

    @property
    def _normalisation(self) -> Normalisation:
        stated = self.config.get("preprocess_cfg") or {}
        if {"mean", "std"} <= self.told.keys():
            return Normalisation((0.0,) * 3, (1.0,) * 3)  # what is told takes its place
        if not is_three(stated.get("mean")) or not is_three(stated.get("std")):
            raise UsageError(f"{self.name}: its {CONFIG} does not say how its pixels are scaled. {TOLD}")
        return Normalisation(tuple(stated["mean"]), tuple(stated["std"]))

    def _side(self, otherwise: int | None) -> int:
        sides = self.vision.get("image_size", otherwise)
        side = sides[0] if isinstance(sides, list) and len(set(sides)) == 1 else sides
        if not isinstance(side, int) or side < 1:
            raise UsageError(f"{self.name}: its {CONFIG} states images of {sides} pixels; wanted is one number.")
        return side

    def locate(self) -> Path:
        return self.publication.weights(WEIGHTS)

    def provenance(self, file: Path | None) -> Provenance:
        return self.publication.provenance(file)

    def _state(self, file: Path, part: str) -> dict[str, Tensor]:
        """The tower's weights of a file, without the text's and the projection's."""
        state = read_published(file)
        found = {key.removeprefix(part): tensor for key, tensor in state.items() if key.startswith(part)}
        if not found:
            raise UsageError(
                f"{file} does not fit {self.name}: it has no weights called {part}...; these look like weights of another "
                "architecture."
            )
        return found


class TimmTower(Tower):
    """A tower whose trunk is a network of timm's."""

    @cached_property
    def _trunk(self) -> timm_models.TimmModel:
        wanted = self.vision["timm_model_name"]
        if not isinstance(wanted, str) or not timm.is_model(wanted.split(".")[0]):
            raise UsageError(
                f"{self.name}: its {CONFIG} names the trunk {wanted!r}, which timm {timm.__version__} does not know."
                f"{nearest(str(wanted), timm.list_models())}"
            )
        if self._pool in ("abs_attn", "rot_attn"):
            raise UsageError(
                f"{self.name} pools its trunk's map by open_clip's {self._pool}, which Stillroom cannot build."
            )
        return timm_models.TimmModel(wanted.split(".")[0])

    @property
    def _pool(self) -> str:
        return self.vision.get("timm_pool", "avg")

    @cached_property
    def specification(self) -> Specification:
        found = self._trunk.specification
        return replace(
            found,
            native_size=self._side(found.native_size),
            normalisation=self._normalisation,
            hub=self.publication.repository,
            licence=None,
            features="mean" if self._pool == "avg" else "cls",
        )

    def build(self, classes: int | None, input_size: Size) -> nn.Module:
        trunk, projected = self._trunk, self.vision.get("timm_proj", "linear") in ("linear", "mlp")
        # A trunk with a projection behind it was built as timm has it, and its pooling changed afterwards; one without was
        # built with the pooling, which may place its final norm elsewhere.
        given = {} if projected else {"global_pool": self._pool}
        made: Any = timm_models.build(trunk.name, self.name, trunk.specification, given, classes or 0, input_size)
        if projected and self._pool:
            made.reset_classifier(classes or 0, global_pool=self._pool)
        return made

    def fill(self, network: Network, file: Path, name: str) -> None:
        head = {f"head.{part}" for part in ("weight", "bias")}  # a projection, where the trunk ends in one
        state = {key: tensor for key, tensor in self._state(file, _TRUNK).items() if key not in head}
        load_state(network, state, self._trunk.name, file)


class OwnTower(Tower):
    """A tower that is a vision transformer of open_clip's."""

    @cached_property
    def specification(self) -> Specification:
        return Specification(
            native_size=self._side(224),
            fixed_size=True,
            normalisation=self._normalisation,
            family="open_clip",
            hub=self.publication.repository,
            features="mean" if self._averages else "cls",
        )

    @property
    def _averages(self) -> bool:
        return self.vision.get("pool_type", "tok") == "avg"

    def build(self, classes: int | None, input_size: Size) -> nn.Module:
        model, vision = _library(self.name).model, dict(self.vision)
        strange = {
            "a ResNet": isinstance(vision.get("layers"), list),
            "pooled by attention": vision.get("attentional_pool"),
            "normed after it is pooled": vision.get("final_ln_after_pool") and self._averages,
            "not pooled": vision.get("pool_type", "tok") not in ("tok", "avg"),
        }
        if what := next((what for what, so in strange.items() if so), None):
            raise UsageError(
                f"{self.name}: its image tower is {what}. Of open_clip's own towers Stillroom takes transformers that give "
                "their class token or the mean of their patches."
            )
        quick = bool(self.config["model_cfg"].get("quick_gelu", False))
        try:
            stated = model.CLIPVisionCfg(**vision | {"image_size": input_size, "output_tokens": False})
            body = model._build_vision_tower(self.config["model_cfg"]["embed_dim"], stated, quick)
        except Exception as error:  # what a config may hold, only the constructor knows
            raise UsageError(f"{self.name}: open_clip cannot build what its {CONFIG} says: {error}.") from error
        body.proj = None
        return TokenBackbone(
            body,
            _ANATOMY,
            width=stated.width,
            prefix=1,
            patch_size=stated.patch_size,
            input_size=input_size,
            ask=_tokens,
            pool=_mean_of_patches if self._averages else first_token,
            classes=classes,
        )

    def fill(self, network: Network, file: Path, name: str) -> None:
        library = _library(self.name)
        body: Any = network.backbone.body
        state = self._state(file, _TOWER)
        state.pop("proj", None)
        if "positional_embedding" in state:
            whole = {"visual.positional_embedding": state["positional_embedding"].float()}
            library.model.resize_pos_embed(whole, SimpleNamespace(visual=body))
            state["positional_embedding"] = whole["visual.positional_embedding"]
        target = body.state_dict()
        wrong = sorted(
            key
            for key in target.keys() | state.keys()
            if key not in state or key not in target or state[key].shape != target[key].shape
        )
        if wrong:
            sides = [tuple(kept[wrong[0]].shape) if wrong[0] in kept else "nothing" for kept in (state, target)]
            raise UsageError(
                f"{file} does not fit {self.name}: {wrong[0]} is {sides[0]} in the file, {sides[1]} in the network; these "
                "look like weights of another architecture."
            )
        body.load_state_dict(state)


def read(name: str, publication: Publication, told: Mapping[str, str]) -> Tower:
    """The tower of a repository or folder in open_clip's form; a repository's config is downloaded if need be."""
    return tower(name, publication.settings(CONFIG), publication, told)


def tower(name: str, config: Mapping[str, Any], publication: Publication, told: Mapping[str, str]) -> Tower:
    """The tower that a config describes."""
    refuse_keywords(name, told)
    kind = TimmTower if _vision(name, config).get("timm_model_name") else OwnTower
    return kind(name, config, publication, told)


def _vision(name: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
    model = config.get("model_cfg")
    vision = model.get("vision_cfg") if isinstance(model, Mapping) else None
    if not isinstance(vision, Mapping) or not isinstance(config["model_cfg"].get("embed_dim"), int):
        raise UsageError(f"{name}: its {CONFIG} has no model_cfg with embed_dim and vision_cfg.")
    return vision


def _library(name: str) -> ModuleType:
    try:
        import open_clip
    except ImportError as error:
        raise UsageError(f"{name} needs open_clip: pip install 'stillroom[openclip]'.") from error
    return open_clip


def _tokens(body: Any, images: Tensor) -> Tensor:
    """Class token and patches after the final norm."""
    return body.ln_post(body.transformer(body._embeds(images)))


def _mean_of_patches(body: nn.Module, tokens: Tensor) -> Tensor:
    return tokens[:, 1:].mean(dim=1)
