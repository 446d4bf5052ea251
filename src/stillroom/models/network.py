"""One contract for every network: images in [0, 1] go in at any size, logits come out."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.errors import UsageError
from stillroom.models.attention import SpatialAttention
from stillroom.models.normalisation import Normalisation
from stillroom.models.taps import (
    FeatureKind,
    Outputs,
    check_kind,
    feature_map,
    has_class_token,
    has_layers,
    linear_classifier,
    pooled_map,
    token_features,
    tokens_of_layers,
    unmapped,
)

Precision = Literal["32", "bf16"]
Start = Literal["random", "pretrained", "cut"]


def is_opaque(network: nn.Module) -> bool:
    """Whether a part of it is computed elsewhere than in torch, so that its size and its work cannot be counted here."""
    return any(getattr(module, "opaque", False) for module in network.modules())


class Network(nn.Module):
    """A timm-shaped backbone behind the contract that all of Stillroom trains, asks and exports.

    Preprocessing is part of it: grey becomes three equal channels, other sizes are resized to ``input_size``
    (bilinear, antialiased where it shrinks), pixels are normalised by the network's own mean and deviation.

    Args:
        backbone: has ``forward_features``, ``forward_head(features, pre_logits)`` and ``get_classifier``.
        name: the name it can be built again from, see :func:`stillroom.models.zoo.create`.
        classes: ``K``, at least 1.
        input_size: height and width that the backbone works at, in pixels.
        normalisation: the backbone's own.
        features: what the classifier sees of a transformer with a class token; None leaves the network's own
            pooling. Other networks have one pooled vector and ignore this. ``both`` comes with a classifier
            twice as wide.
        feature_layers: the features are those of so many of the last blocks side by side, see
            :func:`~stillroom.models.taps.tokens_of_layers`; the classifier is as much wider, and so is the last feature map.
            Refused for a network whose blocks cannot be asked.
        attention: weigh the last feature map by :class:`~stillroom.models.attention.SpatialAttention` before it is
            pooled. Refused for a network that sees its class token alone.

    Attributes:
        adapters: the rank of low-rank adapters beside its weights; 0 but while it is trained by them, see
            :mod:`~stillroom.models.adapters`.
        precision: what the backbone's weights are held in, and computed with: see :meth:`hold_in_bf16`.
        start: where its weights come from before it is trained: ``random``, ``pretrained``, or ``cut`` out of a larger
            network. Training moves pretrained weights more slowly.
        last: the features that the head reads pass through here, so that a hook can watch them in any network.
        published: what was read of its repository or folder before it was built, see
            :attr:`stillroom.models.origins.base.Origin.published`; None where its name says all.
        by_class: makes logits of what the network says, see :mod:`~stillroom.models.answers`; nothing to do for a head.
        mean: buffer ``[3]``.
        std: buffer ``[3]``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        name: str,
        classes: int,
        input_size: tuple[int, int],
        normalisation: Normalisation,
        features: FeatureKind | None = None,
        feature_layers: int = 1,
        attention: bool = False,
    ) -> None:
        super().__init__()
        if features is not None:
            check_kind(features)
        if feature_layers != 1:
            _check_layers(backbone, name, features, feature_layers)
        if attention and has_class_token(backbone) and features != "mean":
            raise UsageError(
                f"Spatial attention has no effect on {name}, which answers from its class token. Choose a network "
                "that pools its feature map, or do without attention (--no-attention)."
            )
        self.name = name
        self.start: Start = "random"
        self.published: dict[str, Any] | None = None
        self.classes = classes
        self.input_size = input_size
        self.features = features if has_class_token(backbone) else None
        self.feature_layers = feature_layers
        self.precision: Precision = "32"
        self.adapters = 0
        self.backbone = backbone
        wider = feature_layers * (2 if self.features == "both" else 1)
        if wider > 1:
            self._widen_classifier(wider)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("std", torch.ones(3))
        self.normalise_by(normalisation)
        self.attention = SpatialAttention() if attention else None
        self.last = nn.Identity()
        self.by_class: nn.Module = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """``[B, C, H, W]`` float in [0, 1], C 1 or 3, to logits ``[B, K]``."""
        features, _ = self._features(images)
        return self._logits(features, self._pooled(features))

    def outputs(self, images: Tensor) -> Outputs:
        """Logits (equal to :meth:`forward`'s), pooled features and last feature map in one pass.

        A network that gives features alone has no map: it is empty then, ``[B, 0, 1, 1]``.
        """
        features, attention = self._features(images)
        pooled = self._pooled(features)
        flat = isinstance(features, Tensor) and features.ndim == 2
        found = pooled[:, :0, None, None] if flat else feature_map(self.backbone, features, self.input_size)
        return Outputs(self._logits(features, pooled), pooled, self._full(found), attention)

    def classify_map(self, found: Tensor) -> Tensor:
        """The head alone, on a last feature map ``[B, C', H', W']`` of whatever origin: logits ``[B, K]``.

        A class token is no part of a map; for a transformer that has one, the mean of the patches stands in for it.
        """
        found = found.bfloat16() if self.precision == "bf16" else found
        if has_class_token(self.backbone):
            pooled = pooled_map(self.backbone, found, self.features, self.feature_layers)
            return self.classifier()(self._full(pooled))
        features = found if self._shapes[2] == 4 else found.flatten(2).transpose(1, 2)
        if getattr(self.backbone, "output_fmt", None) == "NHWC":
            features = found.permute(0, 2, 3, 1)
        return self._logits(features, self._pooled(features))

    def backbone_features(self, images: Tensor, kind: FeatureKind = "cls") -> Tensor:
        """What a linear head on the frozen backbone sees, ``[B, D]``, or ``[B, 2D]`` for ``both``.

        Args:
            images: ``[B, C, H, W]`` float in [0, 1].
            kind: class token, mean of the patch tokens, or both, after the final norm. A network without a
                class token has one pooled vector and gives it whatever the kind.
        """
        check_kind(kind)
        features, _ = self._features(images)
        if has_class_token(self.backbone):
            return self._full(token_features(self.backbone, features, kind, self.feature_layers))
        return self._pooled(features)

    def pooled(self, images: Tensor) -> Tensor:
        """``[B, D]``, what the classifier sees: that of :meth:`outputs`, also of a network without a feature map."""
        return self._pooled(self._features(images)[0])

    def classifier(self) -> nn.Linear:
        """The final linear layer, ``[K, D]``. Raises UsageError where the network ends in something else."""
        return self._named_classifier()[1]

    def hold_in_bf16(self) -> None:
        """Hold the backbone's weights in bfloat16 and compute in it, in half the memory; a linear head stays in float32.

        What it answers is float32 all the same. For frozen networks: weights of such a precision cannot be trained.
        """
        self.precision = "bf16"
        self.backbone.bfloat16()
        if (head := linear_classifier(self.backbone)) is not None:
            head[1].float()

    def float(self) -> Self:
        """All weights in float32, and computing in it."""
        self.precision = "32"
        return super().float()

    @property
    def rebuilds(self) -> bool:
        """Whether it can be saved and exported: torch holds its weights, and its answers are those of a head of ours."""
        return isinstance(self.by_class, nn.Identity) and not is_opaque(self)

    @property
    def normalisation(self) -> Normalisation:
        """Mean and standard deviation as numbers (float32 rounded)."""
        return Normalisation(tuple(self.mean.tolist()), tuple(self.std.tolist()))

    def normalise_by(self, normalisation: Normalisation) -> None:
        """Set mean and standard deviation."""
        self.mean.copy_(torch.tensor(normalisation.mean))
        self.std.copy_(torch.tensor(normalisation.std))

    @property
    def pooled_dim(self) -> int:
        """``D`` of the pooled features."""
        return self._shapes[0]

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """``(C', H', W')`` of the last feature map. Raises UsageError where there is none."""
        if not self._shapes[1][0]:
            raise UsageError(f"{self.name} has no last feature map, so it cannot teach by one. Choose another teacher.")
        return self._shapes[1]

    @cached_property
    def _shapes(self) -> tuple[int, tuple[int, int, int], int]:
        # Asking beats guessing from attributes: one pass over a black image, once. Modes are put back one by
        # one, since a caller may keep parts of the network in evaluation mode while the rest trains.
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            with torch.no_grad():
                black = self.mean.new_zeros(1, 3, *self.input_size)
                outputs, dimensions = self.outputs(black), self._features(black)[0].ndim
        finally:
            for module, training in modes.items():
                module.training = training
        channels, height, width = outputs.map.shape[1:]
        return outputs.pooled.shape[1], (channels, height, width), dimensions

    def _prepare(self, images: Tensor) -> Tensor:
        """``[B, C, H, W]`` in [0, 1] to the backbone's ``[B, 3, h, w]``."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise UsageError(f"Images are [B, 1, H, W] or [B, 3, H, W]; {self.name} was given {tuple(images.shape)}.")
        height, width = self.input_size
        if tuple(images.shape[-2:]) != (height, width):
            shrinks = images.shape[-2] > height or images.shape[-1] > width
            images = F.interpolate(images, (height, width), mode="bilinear", align_corners=False, antialias=shrinks)
        # Three means against one grey channel make three channels.
        images = (images - self.mean.view(3, 1, 1)) / self.std.view(3, 1, 1)
        if torch.compiler.is_exporting():
            return images  # a file has no layouts: the exporter writes a Gather for each, which OpenVINO gets wrong in int8
        return images.contiguous(memory_format=torch.channels_last)  # faster convolutions: benchmarks/layout.py

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The backbone's features in its own layout, weighed by the attention where there is one."""
        images = self._prepare(images)
        images = images.bfloat16() if self.precision == "bf16" else images
        if self.feature_layers > 1:
            features = tokens_of_layers(self.backbone, images, self.feature_layers)
        else:
            features = self.backbone.forward_features(images)  # type: ignore[operator]
        if self.attention is None:
            return self.last(features), None
        found = feature_map(self.backbone, features, self.input_size)
        attention = self.attention(found)
        return self.last(unmapped(self.backbone, features, found * attention)), attention

    def _pooled(self, features: Tensor) -> Tensor:
        if self.features is not None:
            return self._full(token_features(self.backbone, features, self.features, self.feature_layers))
        return self._full(self.backbone.forward_head(features, pre_logits=True))  # type: ignore[operator]

    def _logits(self, features: Tensor, pooled: Tensor) -> Tensor:
        classifier = self.backbone.get_classifier()  # type: ignore[operator]
        if isinstance(classifier, nn.Linear):
            return self.by_class(classifier(pooled))
        # Convolutional, two-layer and two-headed classifiers: only the network knows how it ends.
        return self.by_class(self._full(self.backbone.forward_head(features)))  # type: ignore[operator]

    def _full(self, found: Tensor) -> Tensor:
        """In float32, where the network itself computes in less. (Under autocast its answers are the caller's to cast.)"""
        return found.float() if self.precision == "bf16" else found

    def _named_classifier(self) -> tuple[str, nn.Linear]:
        found = linear_classifier(self.backbone)
        if found is None:
            raise UsageError(
                f"{self.name} does not end in one linear layer, which is needed here. Choose another network."
            )
        return found

    def _widen_classifier(self, times: int) -> None:
        name, classifier = self._named_classifier()
        wide = nn.Linear(times * classifier.in_features, classifier.out_features)
        self.backbone.set_submodule(name, wide)


def _check_layers(backbone: nn.Module, name: str, features: FeatureKind | None, layers: int) -> None:
    """Raises UsageError where features of so many blocks cannot be had."""
    blocks = len(getattr(backbone, "blocks", ()))
    if not has_layers(backbone) or not blocks:
        raise UsageError(
            f"Features of several layers are those of a transformer with a class token whose blocks can be asked; {name} is "
            "none. Leave out --feature-layers, or choose another teacher."
        )
    if features is None:
        raise UsageError(f"Features of several layers of {name}: say which, by features.")
    if not 1 <= layers <= blocks:
        raise UsageError(f"{name} has {blocks} blocks; features of the last {layers} cannot be had.")
