"""Vision backbones of transformers: ``hf:OWNER/NAME[@revision]``, or a folder whose config.json has a ``model_type``.

They are built by transformers' own classes from config.json, and weights are read by transformers' own rules for names that
older versions gave. Code that a repository brings is never run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from stillroom.errors import UsageError
from stillroom.models.network import Network
from stillroom.models.normalisation import Normalisation
from stillroom.models.origins import preprocessing
from stillroom.models.origins.base import Origin, Provenance
from stillroom.models.origins.publication import Publication, read_published
from stillroom.models.origins.tokens import Anatomy, TokenBackbone, first_token, mean_token
from stillroom.models.specification import Size, Specification

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""What the file of weights may be called, in the order looked for."""

_LEFT_OUT = re.compile(
    r"^(text_model|text_projection|visual_projection|decoder|classifier|logit_scale|logit_bias)\b"
    r"|^(vit\.)?pooler\.|(^|\.)position_ids$"
)
"""Weights of a file that have no place in a backbone: text towers, decoders, heads."""
_NOT_READ = "mask_token"
"""A weight of training by masks alone: a file may lack it, or hold one that the network lacks."""
_OURS = ("dtype", "torch_dtype", "attn_implementation", "model_type")
"""Settings that the published config may hold, and that Stillroom decides."""


@dataclass(frozen=True)
class Kind:
    """What is different about one kind of backbone.

    Attributes:
        model: transformers' class, whose config is called alike.
        anatomy: of its module; None for a network of convolutions.
        ask: makes tokens of it and images; of convolutions nothing is asked here.
        fixed: whether its weights depend on the input size.
    """

    model: str
    anatomy: Anatomy | None
    ask: Callable[[Any, Tensor], Tensor]
    fixed: bool = True

    @property
    def config(self) -> str:
        return f"{self.model.removesuffix('Model')}Config"


def _tokens(body: Any, images: Tensor) -> Tensor:
    return body(images).last_hidden_state


def _interpolated(body: Any, images: Tensor) -> Tensor:
    return body(images, interpolate_pos_encoding=True).last_hidden_state


def _normed(body: Any, images: Tensor) -> Tensor:
    return body.post_layernorm(_interpolated(body, images))


def _in_patches(body: Any, images: Tensor) -> Tensor:
    """Of a network that takes patches of images of any shape: here all of a batch have one."""
    patch, (batch, channels, height, width) = body.config.patch_size, images.shape
    rows, columns = height // patch, width // patch
    cut = images.reshape(batch, channels, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
    # Shapes are looked at, so they cannot be without values where everything else is.
    shapes = torch.tensor([[rows, columns]], device="cpu" if images.is_meta else images.device).expand(batch, 2)
    return body(cut.reshape(batch, rows * columns, -1), None, shapes).last_hidden_state


_DINO = Anatomy("encoder.layer", "norm1", "layernorm", ("embeddings",), "embeddings.cls_token")
_DINOV3 = Anatomy("model.layer", "norm1", "norm", ("embeddings",), "embeddings.cls_token")
_VIT = Kind(
    "ViTModel",
    Anatomy("layers", "layernorm_before", "layernorm", ("embeddings",), "embeddings.cls_token"),
    _interpolated,
)
_WITHOUT_CLASS_TOKEN = Anatomy("encoder.layers", "layer_norm1", "post_layernorm", ("embeddings",), "")
_SIGLIP = Kind("SiglipVisionModel", _WITHOUT_CLASS_TOKEN, _interpolated)
_NAFLEX = Kind("Siglip2VisionModel", _WITHOUT_CLASS_TOKEN, _in_patches)
_CLIP = Kind(
    "CLIPVisionModel",
    Anatomy(
        "encoder.layers", "layer_norm1", "post_layernorm", ("embeddings", "pre_layrnorm"), "embeddings.class_embedding"
    ),
    _normed,
)
KINDS: Mapping[str, Kind] = {
    "vit": _VIT,
    "vit_mae": _VIT,  # its encoder is a ViT that is shown a part of the patches; here it is shown all
    "dinov2": Kind("Dinov2Model", _DINO, _tokens),
    "dinov2_with_registers": Kind("Dinov2WithRegistersModel", _DINO, _tokens),
    "dinov3_vit": Kind("DINOv3ViTModel", _DINOV3, _tokens, fixed=False),
    "dinov3_convnext": Kind("DINOv3ConvNextModel", None, _tokens, fixed=False),
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "siglip2": _NAFLEX,
    "siglip2_vision_model": _NAFLEX,
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
}
"""By ``model_type``."""


class ConvNextBackbone(nn.Module):
    """DINOv3's ConvNeXt: its pooled vector is the normed mean of the last feature map, which is not normed itself."""

    def __init__(self, body: Any, width: int, classes: int | None) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, classes) if classes else nn.Identity()

    def forward_features(self, images: Tensor) -> Tensor:
        return self.body.model(images).last_hidden_state

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.body.layer_norm(features.mean((2, 3)))
        return pooled if pre_logits else self.head(pooled)

    def get_classifier(self) -> nn.Module:
        return self.head

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which stage a parameter belongs to, as timm's layer decay wants it."""
        return {"stem": r"^body\.model\.stages\.0\.downsample", "blocks": r"^body\.model\.stages\.(\d+)"}

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


@dataclass(frozen=True)
class TransformersBackbone(Origin):
    """A vision backbone of transformers by its config.

    Args:
        name: the user's.
        config: what config.json holds.
        preprocessor: what preprocessor_config.json holds; empty where the name states mean and deviation instead.
        publication: where the weights are.
    """

    name: str
    config: Mapping[str, Any]
    preprocessor: Mapping[str, Any]
    publication: Publication
    reads_all_weights: ClassVar[bool] = True

    @property
    def published(self) -> dict[str, Any]:
        return {CONFIG: dict(self.config), preprocessing.FILE: dict(self.preprocessor)}

    @cached_property
    def specification(self) -> Specification:
        made = self._config
        stated, own = self.preprocessor, Normalisation((0.0,) * 3, (1.0,) * 3)
        side = preprocessing.side_of(self.name, stated) or _side(self.name, _made_for(made))
        return Specification(
            native_size=side,
            fixed_size=self._kind.fixed,
            normalisation=preprocessing.normalisation_of(self.name, stated) if stated else own,
            family=str(self.config["model_type"]),
            hub=self.publication.repository,
        )

    @property
    def _kind(self) -> Kind:
        return _kind_of(self.name, self.config)

    @cached_property
    def _config(self) -> Any:
        """transformers' config of the image tower."""
        kind, library = self._kind, _library(self.name)
        stated = self.config.get("vision_config", self.config)
        maker = getattr(library, kind.config, None)
        if maker is None:
            raise UsageError(f"transformers {library.__version__} has no {kind.config}. Install a newer one.")
        try:
            made = maker(**{key: value for key, value in stated.items() if key not in _OURS and key[:1] != "_"})
        except Exception as error:  # transformers checks a config in many places
            raise _unbuildable(self.name, library, error) from error
        if made.num_channels != 3:
            raise UsageError(f"{self.name} takes images of {made.num_channels} channels; Stillroom's have three.")
        return made

    def build(self, classes: int | None, input_size: Size) -> nn.Module:
        kind, made, library = self._kind, self._config, _library(self.name)
        try:
            body = getattr(library, kind.model)(made, **_parts(kind))
        except Exception as error:  # what a config may hold, only the constructor knows
            raise _unbuildable(self.name, library, error) from error
        if kind.anatomy is None:
            return ConvNextBackbone(body, made.hidden_sizes[-1], classes)
        registers = getattr(made, "num_register_tokens", 0)
        return TokenBackbone(
            body,
            kind.anatomy,
            width=made.hidden_size,
            prefix=(1 + registers) if kind.anatomy.class_token else 0,
            patch_size=_side(self.name, made.patch_size),
            input_size=input_size,
            ask=kind.ask,
            pool=first_token if kind.anatomy.class_token else _pooler if made.vision_use_head else mean_token,
            classes=classes,
        )

    def locate(self) -> Path:
        return self.publication.weights(WEIGHTS)

    def fill(self, network: Network, file: Path, name: str) -> None:
        network.backbone.body = self._filled(file)

    def provenance(self, file: Path | None) -> Provenance:
        return self.publication.provenance(file)

    def _filled(self, file: Path) -> nn.Module:
        """The body with a file's weights, by transformers' own names or by those of an older version."""
        kind, library = self._kind, _library(self.name)
        state = {key: tensor for key, tensor in read_published(file).items() if not _LEFT_OUT.search(key)}
        with _quiet(library), torch.random.fork_rng(devices=[]):
            try:
                body, told = getattr(library, kind.model).from_pretrained(
                    None,
                    config=self._config,
                    state_dict=state,
                    dtype=torch.float32,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # they are told, and refused below
                    **_parts(kind),
                )
            except Exception as error:  # a file of another make can fail anywhere in there
                raise UsageError(
                    f"{file} cannot be read as weights of {self.name} ({_first_line(error)}): these look like weights of "
                    "another architecture."
                ) from error
        lacking = sorted(key for key in told["missing_keys"] if not key.endswith(_NOT_READ))
        extra = sorted(key for key in told["unexpected_keys"] if not key.endswith(_NOT_READ))
        if told["mismatched_keys"]:
            key, found, wanted = sorted(told["mismatched_keys"])[0]
            said = f"{key} is {tuple(found)} in the file, {tuple(wanted)} in the network"
        elif lacking or extra:
            said = f"it lacks {lacking[0]}" if lacking else f"it holds {extra[0]}, which the network lacks"
            said += f" (and {len(lacking or extra) - 1} more)" if len(lacking or extra) > 1 else ""
        else:
            return body
        raise UsageError(f"{file} does not fit {self.name}: {said}; these look like weights of another architecture.")


def read(name: str, publication: Publication, told: Mapping[str, str]) -> TransformersBackbone:
    """The network of a repository or folder in transformers' form; a repository's settings are downloaded if need be.

    Args:
        name: the user's.
        publication: the repository or folder.
        told: the options of the name.

    Raises:
        UsageError: it is of another form, or does not say how its pixels are scaled.
    """
    preprocessing.refuse_keywords(name, told)
    _library(name)
    config = publication.settings(CONFIG)
    if "model_type" not in config:
        hint = " It is of timm's form: write hf-hub: in front instead." if "architecture" in config else ""
        raise UsageError(f"{name}: its config.json names no model_type of transformers'.{hint}")
    _kind_of(name, config)
    scaling: dict[str, Any] = {}
    if not {"mean", "std"} <= told.keys():
        try:
            scaling = publication.settings(preprocessing.FILE)
        except UsageError as error:
            raise UsageError(f"{name} does not say how its pixels are scaled: {error} {preprocessing.TOLD}") from error
    return TransformersBackbone(name, config, scaling, publication)


def _kind_of(name: str, config: Mapping[str, Any]) -> Kind:
    wanted = str(config.get("model_type"))
    if wanted not in KINDS or "AutoModel" in (config.get("auto_map") or {}):
        code = ", and brings code of its own, which is never run" if config.get("auto_map") else ""
        raise UsageError(
            f"{name}: its config.json says model_type {wanted!r}{code}. Stillroom takes {', '.join(KINDS)} of "
            "transformers; others can be brought as package.module:function."
        )
    if "quantization_config" in config:
        raise UsageError(f"{name} is published with quantised weights. Choose one with weights in full.")
    return KINDS[wanted]


def _library(name: str) -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise UsageError(f"{name} needs transformers: pip install 'stillroom[transformers]'.") from error
    return transformers


@contextmanager
def _quiet(library: ModuleType) -> Iterator[None]:
    """Without transformers' bars and tables: what does not fit is refused in our words."""
    said = library.utils.logging
    level, bars = said.get_verbosity(), said.is_progress_bar_enabled()
    said.set_verbosity(said.CRITICAL)
    said.disable_progress_bar()
    try:
        yield
    finally:
        said.set_verbosity(level)
        if bars:
            said.enable_progress_bar()


def _pooler(body: Any, tokens: Tensor) -> Tensor:
    """SigLIP's own: attention of one learnt query."""
    return body.head(tokens)


def _parts(kind: Kind) -> dict[str, Any]:
    return {"add_pooling_layer": False} if kind is _VIT else {}


def _side(name: str, stated: Any) -> int:
    sides = set(stated) if isinstance(stated, list | tuple) else {stated}
    side = sides.pop() if len(sides) == 1 else None
    if not isinstance(side, int) or side < 1:
        raise UsageError(f"{name}: its config.json states {stated} as a side in pixels; wanted is one number.")
    return side


def _made_for(made: Any) -> Any:
    """The side that the positions of a network are made for."""
    return made.patch_size * isqrt(made.num_patches) if hasattr(made, "num_patches") else made.image_size


def _unbuildable(name: str, library: ModuleType, error: Exception) -> UsageError:
    return UsageError(
        f"{name}: transformers {library.__version__} cannot build what its config.json says: {_first_line(error)}."
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (": ".join(lines[:2]) if lines else type(error).__name__).rstrip(".")
