"""CONCH's image tower (Lu et al., Nature Medicine 2024): a transformer whose tokens are pooled by attention.

Written after the description of their code, of which it keeps the names of the weights. What the authors call the embedding
before its last projection is what the classifier sees here; they advise it for linear probes.
"""

from __future__ import annotations

from timm.models import vision_transformer
from torch import Tensor, nn, randn

State = dict[str, Tensor]

_TOWER, _TRUNK = "visual.", "trunk."
_POOLING = ("attn_pool_contrast.", "ln_contrast.")


class AttentionPool(nn.Module):
    """``[B, N, C]`` tokens to ``[B, D]``: one learnt query looks at all of them, the class token included.

    Args:
        width: ``D``.
        tokens: ``C``.
        heads: of the attention.
    """

    def __init__(self, width: int, tokens: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(randn(1, width))
        self.attn = nn.MultiheadAttention(width, heads, kdim=tokens, vdim=tokens, batch_first=True)
        self.ln_q = nn.LayerNorm(width)
        self.ln_k = nn.LayerNorm(tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        keys = self.ln_k(tokens)
        query = self.ln_q(self.query).expand(len(tokens), 1, -1)
        return self.attn(query, keys, keys, need_weights=False)[0][:, 0]


class Conch(nn.Module):
    """ViT-B/16 with attention pooling, and a classifier on its 512 numbers.

    Args:
        classes: ``K``; 0 leaves the classifier out.
        input_size: height and width in pixels, multiples of 16; the authors' is 448.
        width, depth, heads, pooled: of the transformer, and of what it is pooled to; smaller in tests.
    """

    num_prefix_tokens = 1

    def __init__(
        self,
        classes: int,
        input_size: tuple[int, int],
        *,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        pooled: int = 512,
    ) -> None:
        super().__init__()
        self.trunk = vision_transformer.VisionTransformer(
            img_size=input_size, patch_size=16, embed_dim=width, depth=depth, num_heads=heads, num_classes=0
        )
        self.attn_pool_contrast = AttentionPool(pooled, width, 8)
        self.ln_contrast = nn.LayerNorm(pooled)
        self.head = nn.Linear(pooled, classes) if classes else nn.Identity()

    @property
    def patch_embed(self) -> nn.Module:
        """Says the size of the patches and their grid."""
        return self.trunk.patch_embed

    def forward_features(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` to tokens ``[B, 1 + H/16 * W/16, C]``, the class token first."""
        return self.trunk.forward_features(images)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens to the embedding ``[B, D]``, or to logits ``[B, K]``."""
        pooled = self.ln_contrast(self.attn_pool_contrast(tokens))
        return pooled if pre_logits else self.head(pooled)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        return self.head


def checkpoint_filter_fn(state: State, model: Conch) -> State:
    """The authors' file in our names: texts and projections left out, positions resampled to the model's grid."""
    state = {key.removeprefix(_TOWER): value for key, value in state.items()}
    trunk = {key.removeprefix(_TRUNK): value for key, value in state.items() if key.startswith(_TRUNK)}
    trunk = vision_transformer.checkpoint_filter_fn(trunk, model.trunk)
    kept = {key: value for key, value in state.items() if key.startswith((*_POOLING, "head."))}
    return {f"{_TRUNK}{key}": value for key, value in trunk.items()} | kept
