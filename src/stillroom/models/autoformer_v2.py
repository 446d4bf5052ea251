"""AutoFormerV2, the Swin-type networks that S3 found (Chen et al., Searching the Search Space of Vision Transformer, 2021).

They differ from Swin in depths and in windows that have a size of their own in every stage. The blocks are timm's. At 224 px
its ``swin_s3_tiny_224``, ``swin_s3_small_224`` and ``swin_s3_base_224`` are the same networks; at sizes that windows do not
divide, theirs see padding and the opposite border, and ours do not.
"""

from __future__ import annotations

import torch
from timm.layers import resize_rel_pos_bias_table, to_2tuple
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, WindowAttention, window_partition
from torch import Tensor

NATIVE_SIZE = 224
_PATCH = 4
_HEADS = (3, 6, 12, 24)
_TABLE = "relative_position_bias_table"
_RECOMPUTED = ("relative_position_index", "attn_mask")


class AutoFormerV2(SwinTransformer):
    """A Swin transformer of 96, 192, 384 and 768 channels with 3, 6, 12 and 24 heads, and an MLP four times as wide.

    A window larger than its stage's map shrinks to the map; where windows do not divide it, those at the border are cut.

    Args:
        classes: ``K``.
        input_size: height and width in pixels, multiples of 4.
        depths: blocks of the four stages.
        windows: sides of the four stages' windows, in tokens.
        drop_path: rate of stochastic depth in training: 0 at the first block, rising to this at the last.
    """

    def __init__(
        self,
        classes: int,
        input_size: tuple[int, int],
        depths: tuple[int, ...],
        windows: tuple[int, ...],
        drop_path: float,
    ) -> None:
        super().__init__(
            img_size=input_size,
            patch_size=_PATCH,
            num_classes=classes,
            depths=depths,
            num_heads=_HEADS,
            window_size=windows,  # type: ignore[arg-type]  # one per stage is fine, but for timm's annotation
            drop_path_rate=drop_path,
        )
        self.windows = windows
        for block in self.modules():
            if isinstance(block, SwinTransformerBlock):
                mask = _mask(to_2tuple(block.input_resolution), block.window_size, block.shift_size)
                block.register_buffer("attn_mask", mask, persistent=False)


def autoformerv2_tiny(classes: int, input_size: tuple[int, int], drop_path: float = 0.1) -> AutoFormerV2:
    """S3-T: 28 M parameters, published top-1 82.1 % on ImageNet."""
    return AutoFormerV2(classes, input_size, (2, 2, 6, 2), (7, 7, 14, 7), drop_path)


def autoformerv2_small(classes: int, input_size: tuple[int, int], drop_path: float = 0.1) -> AutoFormerV2:
    """S3-S: 50 M parameters, published top-1 83.7 % on ImageNet."""
    return AutoFormerV2(classes, input_size, (2, 2, 18, 2), (14, 14, 14, 14), drop_path)


def autoformerv2_base(classes: int, input_size: tuple[int, int], drop_path: float = 0.1) -> AutoFormerV2:
    """S3-B: 71 M parameters, published top-1 84.0 % on ImageNet."""
    return AutoFormerV2(classes, input_size, (2, 2, 30, 2), (7, 7, 14, 7), drop_path)


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' weights under our names; weights that have our names (timm's files do) are left as they are.

    The authors merge patches at the end of a stage, we at the start of the next. What follows from the input size is
    computed, not loaded. Names that neither knows are kept, for the caller to refuse.
    """
    state = {key: value for key, value in state.items() if not key.endswith(_RECOMPUTED)}
    if "layers.0.downsample.reduction.weight" not in state:
        return state
    return {_renamed(key): value for key, value in state.items()}


def checkpoint_filter_fn(state: dict[str, Tensor], model: AutoFormerV2) -> dict[str, Tensor]:
    """Published weights as ``model`` takes them; :mod:`stillroom.models.weights` asks for this name, as timm does.

    Where another input size changes the windows, the tables of relative positions are resampled by timm's rule.

    Raises:
        ValueError: a table is not of the published windows. Resampled it would fit, so that the weights of a
            network with other windows, such as Swin-T's, would pass for this one's.
    """
    state = from_published(state)
    for name, attention in model.named_modules():
        key = f"{name}.{_TABLE}"
        if not isinstance(attention, WindowAttention) or key not in state:
            continue
        stage = int(name.split(".")[1])
        side = 2 * min(model.windows[stage], NATIVE_SIZE // (_PATCH * 2**stage)) - 1
        published, own = (side**2, _HEADS[stage]), attention.relative_position_bias_table.shape
        if state[key].shape != published:
            raise ValueError(f"{key} is {tuple(state[key].shape)} in the file, published it is {published}")
        if own != published:
            state[key] = resize_rel_pos_bias_table(state[key], attention.window_size, own)
    return state


def _mask(size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> Tensor | None:
    """What is added to the scores ``[windows, tokens, tokens]`` of a map rolled by ``shift``, then padded to whole windows.

    It keeps apart what only rolling or padding has put into one window. timm's own takes the padding for what was rolled.
    """
    if not any(shift) and size[0] % window[0] == 0 and size[1] % window[1] == 0:
        return None
    rows, columns = map(_origin, size, window, shift)
    tokens = window_partition((3 * rows[:, None] + columns)[None, ..., None], window).flatten(1)
    # Swin's -100: finite, and nothing is left of it after the softmax.
    return -100.0 * (tokens[:, :, None] != tokens[:, None]).float()


def _origin(extent: int, window: int, shift: int) -> Tensor:
    """Along one axis, per token: 0 where it stayed on its side, 1 from the other border, 2 padding."""
    position = torch.arange(-(-extent // window) * window)
    return (position >= extent - shift).int() + (position >= extent).int()


def _renamed(key: str) -> str:
    first, *rest = key.split(".")
    if first == "head":
        return ".".join(["head", "fc", *rest])
    if first == "layers" and rest[1:2] == ["downsample"]:
        return ".".join(["layers", str(int(rest[0]) + 1), *rest[1:]])
    return key
