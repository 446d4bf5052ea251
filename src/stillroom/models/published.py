"""Key names of weights that authors published beside their own code, as Stillroom's networks name them.

timm's networks need none of this: timm keeps such rules beside each model.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, ones, zeros

State = dict[str, Tensor]

_OFA = (
    ("first_conv.", "stem."),
    ("final_expand_layer.", "final."),
    ("feature_mix_layer.conv.", "mix."),
    ("classifier.linear.", "classifier."),
    (".mobile_inverted_conv.inverted_bottleneck.", ".expand."),
    (".mobile_inverted_conv.depth_conv.se.fc.", ".se."),
    (".mobile_inverted_conv.depth_conv.", ".depthwise."),
    (".mobile_inverted_conv.point_linear.", ".project."),
)


def from_ofa(state: State) -> State:
    """A specialised network of once-for-all (Cai et al., ICLR 2020), with its names made those of ``models/ofa.py``.

    Names that the authors' networks do not have are kept.
    """
    return {_replaced(key, _OFA): value for key, value in state.items()}


def from_retfound(state: State) -> State:
    """RETFound (Zhou et al., Nature 2023) as its masked autoencoder was trained: what decodes is left out.

    Its authors take the mean of the patches and norm it afterwards, with a norm that starts afresh; that of the pretrained
    encoder stood before the mean, and they do not use it.
    """
    kept = {key: value for key, value in state.items() if not key.startswith(("decoder_", "mask_token", "norm."))}
    width = state["cls_token"].shape[-1] if "cls_token" in state else 0
    return {"fc_norm.weight": ones(width), "fc_norm.bias": zeros(width)} | kept


def _replaced(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for old, new in rules:
        key = key.replace(old, new)
    return key


PUBLISHED: dict[str, Callable[[State], State]] = {"ofa": from_ofa, "retfound": from_retfound}
"""What makes authors' names ours, by the beginning of the network's name."""
