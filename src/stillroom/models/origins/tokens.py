"""Transformers of other libraries behind timm's three methods: tokens on a grid of patches, others in front of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from stillroom.models.specification import Size


@dataclass(frozen=True)
class Anatomy:
    """Where a library keeps the parts of a transformer, as dotted names in its module.

    Attributes:
        blocks: its layers, in their order.
        norm: in a block, the norm through which its input passes first.
        final: the norm behind the last block.
        stem: what stands before the blocks.
        class_token: the parameter that becomes the class token; empty where there is none.
    """

    blocks: str
    norm: str
    final: str
    stem: tuple[str, ...]
    class_token: str


@dataclass(frozen=True)
class Patches:
    """Patches of an image, as timm's networks state them.

    Attributes:
        grid_size: rows and columns.
        patch_size: height and width in pixels.
    """

    grid_size: tuple[int, int]
    patch_size: tuple[int, int]


class TokenBackbone(nn.Module):
    """A vision transformer, and a linear head on what it is pooled to.

    Args:
        body: the library's module.
        anatomy: of it.
        width: ``D``.
        prefix: how many tokens stand before those of the patches: class token and registers.
        patch_size: side of a patch in pixels.
        input_size: height and width of the images in pixels.
        ask: makes of body and normalised images ``[B, 3, H, W]`` tokens ``[B, N, D]`` after the final norm.
        pool: makes of body and tokens what stands for the image, ``[B, D]``.
        classes: ``K`` of the head; None leaves it out.
    """

    def __init__(
        self,
        body: nn.Module,
        anatomy: Anatomy,
        *,
        width: int,
        prefix: int,
        patch_size: int,
        input_size: Size,
        ask: Callable[[Any, Tensor], Tensor],
        pool: Callable[[Any, Tensor], Tensor],
        classes: int | None,
    ) -> None:
        super().__init__()
        self.body, self.anatomy, self.ask, self.pool = body, anatomy, ask, pool
        self.num_prefix_tokens = prefix
        grid = (input_size[0] // patch_size, input_size[1] // patch_size)
        self.patch_embed = Patches(grid, (patch_size, patch_size))
        self.head = nn.Linear(width, classes) if classes else nn.Identity()

    @property
    def cls_token(self) -> Tensor | None:
        """The parameter behind the class token; None where the network has none."""
        return attrgetter(self.anatomy.class_token)(self.body) if self.anatomy.class_token else None

    @property
    def last_block_input(self) -> str:
        """Name of the layer that the last block's input passes, for heat maps of networks that answer from a class token."""
        return f"body.{self.anatomy.blocks}.{len(self.blocks) - 1}.{self.anatomy.norm}"

    @property
    def blocks(self) -> nn.ModuleList:
        return attrgetter(self.anatomy.blocks)(self.body)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.ask(self.body, images)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int,
        return_prefix_tokens: bool = True,
        norm: bool = True,
        output_fmt: str = "NLC",
        intermediates_only: bool = True,
    ) -> list[tuple[Tensor, Tensor]]:
        """Patches ``[B, N', D]`` and the tokens before them, after each of the last ``indices`` blocks and the final norm.

        It is called as timm's is, and does what these keywords say and no other.
        """
        seen: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda module, inputs, output: seen.append(output))
            for block in self.blocks[-indices:]
        ]
        try:
            self.ask(self.body, images)
        finally:
            for hook in hooks:
                hook.remove()
        normed = [getattr(self.body, self.anatomy.final)(tokens) for tokens in seen]
        return [(tokens[:, self.num_prefix_tokens :], tokens[:, : self.num_prefix_tokens]) for tokens in normed]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.pool(self.body, features)
        return pooled if pre_logits else self.head(pooled)

    def get_classifier(self) -> nn.Module:
        return self.head

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which layer a parameter belongs to, as timm's layer decay wants it."""
        stem, blocks = "|".join(map(re.escape, self.anatomy.stem)), re.escape(self.anatomy.blocks)
        return {"stem": rf"^body\.(?:{stem})", "blocks": [(rf"^body\.{blocks}\.(\d+)", None), (r"^body\.", (99999,))]}

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def first_token(body: nn.Module, tokens: Tensor) -> Tensor:
    """The class token."""
    return tokens[:, 0]


def mean_token(body: nn.Module, tokens: Tensor) -> Tensor:
    """The mean of tokens that all stand for patches."""
    return tokens.mean(dim=1)
