"""What can be read off any network in one pass: logits, pooled features and the last feature map.

timm networks share three methods (``forward_features``, ``forward_head``, ``get_classifier``) but not the
shape of what the first returns: ``[B, C, H, W]``, ``[B, H, W, C]`` or ``[B, N, C]`` tokens. Only this module
knows.
"""

from __future__ import annotations

import inspect
from math import isqrt
from typing import Literal, NamedTuple, get_args

from torch import Tensor, cat, nn

from stillroom.errors import UsageError

FeatureKind = Literal["cls", "mean", "both"]


class Outputs(NamedTuple):
    """A network's answers to ``B`` images.

    Attributes:
        logits: ``[B, K]``.
        pooled: ``[B, D]``, what the classifier sees.
        map: ``[B, C', H', W']``, the last feature map; for a transformer its patch tokens on their grid.
            ``C'`` and ``D`` differ where the head widens the features (MobileNetV3, VGG).
        attention: ``[B, 1, H', W']`` in (0, 1), by which ``map`` has been weighed; None where there is no attention.
    """

    logits: Tensor
    pooled: Tensor
    map: Tensor
    attention: Tensor | None = None

    def of(self, rows: slice) -> Outputs:
        """The answers to some of the images."""
        attention = None if self.attention is None else self.attention[rows]
        return Outputs(self.logits[rows], self.pooled[rows], self.map[rows], attention)


def feature_map(backbone: nn.Module, features: Tensor, aspect: tuple[int, int]) -> Tensor:
    """``forward_features``'s result as ``[B, C', H', W']``.

    Args:
        backbone: the timm network that made ``features``.
        features: ``[B, C, H, W]``, ``[B, H, W, C]`` or ``[B, N, C]``, as the network has it.
        aspect: height and width of the network's input, in pixels; settles the grid where none is stated.

    Raises:
        UsageError: the features have no spatial layout.
    """
    if isinstance(features, Tensor) and features.ndim == 4:
        return features.permute(0, 3, 1, 2) if getattr(backbone, "output_fmt", None) == "NHWC" else features
    if isinstance(features, Tensor) and features.ndim == 3:
        patches = features[:, _prefix_tokens(backbone) :]
        grid = _grid(backbone, patches.shape[1], aspect)
        if grid is not None:
            return patches.transpose(1, 2).reshape(patches.shape[0], patches.shape[2], *grid)
    raise UsageError(
        f"{type(backbone).__name__} has no last feature map, so it can neither be explained by heat maps nor "
        "teach by feature maps. Choose another network or an objective on logits."
    )


def layer_map(backbone: nn.Module, output: Tensor, aspect: tuple[int, int]) -> Tensor:
    """Any layer's output as a map ``[B, C', H', W']``: like :func:`feature_map`, but also of tokens without a prefix.

    Raises:
        UsageError: the output has no spatial layout.
    """
    grid = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    if grid is not None and _prefix_tokens(backbone):  # before the class token is put in front
        if output.ndim == 3 and output.shape[1] == grid[0] * grid[1]:
            return output.transpose(1, 2).reshape(len(output), output.shape[2], *grid)
        if output.ndim == 4 and tuple(output.shape[1:3]) == tuple(grid):  # networks that take images of any size
            return output.permute(0, 3, 1, 2)
    return feature_map(backbone, output, aspect)


def unmapped(backbone: nn.Module, features: Tensor, changed: Tensor) -> Tensor:
    """The inverse of :func:`feature_map`: ``features`` in the network's own layout, with the map ``changed`` in its place.

    Args:
        backbone: the timm network that made ``features``.
        features: as ``forward_features`` gave them; class and register tokens are kept.
        changed: ``[B, C', H', W']``.
    """
    if features.ndim == 4:
        return changed.permute(0, 2, 3, 1) if getattr(backbone, "output_fmt", None) == "NHWC" else changed
    return cat([features[:, : _prefix_tokens(backbone)], changed.flatten(2).transpose(1, 2)], dim=1)


def has_class_token(backbone: nn.Module) -> bool:
    """Whether the network is a transformer whose first token stands for the whole image."""
    return getattr(backbone, "cls_token", None) is not None and _prefix_tokens(backbone) > 0


def token_features(backbone: nn.Module, tokens: Tensor, kind: FeatureKind, layers: int = 1) -> Tensor:
    """Class token ``[B, D]``, mean of the patch tokens ``[B, D]`` or both ``[B, 2D]``, after the final norm.

    Args:
        backbone: a network with a class token.
        tokens: ``[B, N, D]`` from ``forward_features``, or from :func:`tokens_of_layers`.
        kind: ``both`` puts the class token first. Register tokens are in none of them.
        layers: how many layers' tokens stand side by side in ``D``.
    """
    if kind == "cls":
        return _normed(backbone, tokens[:, 0], layers)
    mean = _normed(backbone, tokens[:, _prefix_tokens(backbone) :].mean(dim=1), layers)
    return mean if kind == "mean" else cat([_normed(backbone, tokens[:, 0], layers), mean], dim=1)


def tokens_of_layers(backbone: nn.Module, images: Tensor, layers: int) -> Tensor:
    """The tokens after each of the last blocks, each after the final norm, side by side: ``[B, N, layers * D]``.

    The last block's, which ``forward_features`` gives alone, come last. Linear probes of DINO and DINOv2 see the class tokens
    of four blocks so (Oquab et al. 2023, arXiv:2304.07193; ``create_linear_input`` in their code).

    Args:
        backbone: see :func:`has_layers`.
        images: what the backbone takes.
        layers: how many, at least 1.
    """
    found = backbone.forward_intermediates(  # type: ignore[operator]
        images, indices=layers, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
    )
    return cat([cat([prefix, patches], dim=1) for patches, prefix in found], dim=2)


def has_layers(backbone: nn.Module) -> bool:
    """Whether the tokens of any block can be asked for."""
    ask = getattr(backbone, "forward_intermediates", None)
    wanted = {"return_prefix_tokens", "norm", "output_fmt", "intermediates_only"}
    return ask is not None and has_class_token(backbone) and wanted <= set(inspect.signature(ask).parameters)


def pooled_map(backbone: nn.Module, found: Tensor, kind: FeatureKind | None, layers: int = 1) -> Tensor:
    """What :func:`token_features` would give if every token were one of the map's: ``[B, D]``, or ``[B, 2D]`` for ``both``.

    Args:
        backbone: a network with a class token.
        found: ``[B, D, H', W']``, a last feature map.
        kind: as the network has it; None is its own pooling.
        layers: how many layers' maps stand side by side in ``D``.
    """
    mean = _normed(backbone, found.mean(dim=(2, 3)), layers)
    return cat([mean, mean], dim=1) if kind == "both" else mean


def _normed(backbone: nn.Module, pooled: Tensor, layers: int) -> Tensor:
    """A transformer that pools the mean has its final norm after the pooling; elsewhere ``fc_norm`` does nothing."""
    norm = getattr(backbone, "fc_norm", None)
    if norm is None:
        return pooled
    return norm(pooled) if layers == 1 else norm(pooled.unflatten(1, (layers, -1))).flatten(1)


def check_kind(kind: str) -> None:
    """Raises UsageError where ``kind`` is not a :data:`FeatureKind`."""
    if kind not in get_args(FeatureKind):
        raise UsageError(f"Features of a transformer are {', '.join(get_args(FeatureKind))}; got {kind!r}.")


def linear_classifier(backbone: nn.Module) -> tuple[str, nn.Linear] | None:
    """The final linear layer and its dotted name, e.g. ``head.fc``; None where the head is something else."""
    classifier = backbone.get_classifier()  # type: ignore[operator]
    if not isinstance(classifier, nn.Linear):
        return None
    return next((name, classifier) for name, module in backbone.named_modules() if module is classifier)


def classifiers(backbone: nn.Module) -> list[nn.Module]:
    """The layers that end in logits: one, or two where a network has a second head for distillation (DeiT)."""
    found = backbone.get_classifier()  # type: ignore[operator]
    heads = list(found) if isinstance(found, tuple | list) else [found]
    weighted = [[m for m in head.modules() if getattr(m, "weight", None) is not None] for head in heads]
    return [layers[-1] for layers in weighted if layers]


def _prefix_tokens(backbone: nn.Module) -> int:
    """Class and register tokens in front of the patches."""
    stated = getattr(backbone, "num_prefix_tokens", None)
    return int(stated) if stated is not None else int(getattr(backbone, "cls_token", None) is not None)


def _grid(backbone: nn.Module, count: int, aspect: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of ``count`` patch tokens."""
    stated = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    if stated is not None and stated[0] * stated[1] == count:
        return int(stated[0]), int(stated[1])
    # Several stages: the tokens left are a shrunken image of the same shape.
    rows = isqrt(count * aspect[0] // aspect[1])
    return (rows, count // rows) if rows and rows * (count // rows) == count else None
