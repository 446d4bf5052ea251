"""Which layer of a network a heat map is made from, and that layer's output as a feature map.

A layer is named as torch names it (``layer3``, ``blocks.5.2``), for a :class:`Network` below its backbone. ``last`` is the
feature map that a :class:`Network`'s head reads; ``auto`` is the last layer whose map still has four places a side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stillroom.errors import UsageError, nearest
from stillroom.inference import evaluating
from stillroom.models.network import Network
from stillroom.models.taps import has_class_token, layer_map

FEWEST_PLACES = 4
"""A map of fewer places a side says too little of where: ``auto`` takes an earlier layer then."""


@dataclass(frozen=True)
class Layer:
    """A layer to watch.

    Attributes:
        name: as the user may give it.
        path: the module's dotted name in the network itself.
        module: whose output is watched.
        as_map: that output as ``[B, C', H', W']``.
    """

    name: str
    path: str
    module: nn.Module
    as_map: Callable[[Tensor], Tensor]


@contextmanager
def watched(layer: Layer) -> Iterator[list[Tensor]]:
    """The layer's outputs, as the network made them, one for each pass inside the block."""
    seen: list[Tensor] = []
    handle = layer.module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        yield seen
    finally:
        handle.remove()


def find_layer(
    network: nn.Module,
    name: str | None,
    image: Tensor,
    *,
    by_gradient: bool = False,
    as_map: Callable[[Tensor], Tensor] | None = None,
) -> Layer:
    """The layer called ``name``.

    Args:
        network: any module from images to logits; layers of a :class:`Network` are looked for in its backbone.
        name: a module's dotted name, ``last`` or ``auto``. None is ``last`` for a :class:`Network`, and elsewhere the
            last module that gives a map of more than one place.
        image: ``[1, C, H, W]``, to try the network with.
        by_gradient: the method follows gradients. None is then, for a transformer that answers from its class token, the
            input of its last block: nothing later is on the way from its patches to its answer.
        as_map: makes ``[B, C', H', W']`` of the layer's output, for networks whose layout Stillroom cannot know.

    Raises:
        UsageError: no such layer, or its output is no map.
    """
    backbone = network.backbone if isinstance(network, Network) else network
    size = network.input_size if isinstance(network, Network) else (image.shape[-2], image.shape[-1])

    def by_layout(output: Tensor) -> Tensor:
        return layer_map(backbone, output, size)

    convert = as_map or by_layout
    named = dict(backbone.named_modules())
    if isinstance(network, Network):
        named["last"] = network.last
        name = name or ("last" if not by_gradient or network.features == "mean" else _before_the_class_token(backbone))
    if name is None or name == "auto":
        name = _last_of(network, named, convert, image, FEWEST_PLACES if name else 2)
    if name not in named or not name:
        raise UsageError(f"The network has no layer {name!r}.{nearest(name, list(named))}")
    path = f"backbone.{name}" if isinstance(network, Network) and name != "last" else name
    layer = Layer(name, path, named[name], convert)
    with watched(layer) as seen, evaluating(network):
        network(image)
    if not seen:
        raise UsageError(f"The layer {name} takes no part in the network's answer. Choose another layer.")
    shape = _shape(convert, seen[-1])
    if shape is None:
        raise UsageError(
            f"The layer {name} gives no feature map, so no heat map can be made of it. Choose another layer."
        )
    if shape[0] * shape[1] < 2:
        raise UsageError(
            f"The map of the layer {name} has one place for images of {image.shape[-2]} x {image.shape[-1]} pixels: it "
            "cannot say where. Choose an earlier layer, or larger images."
        )
    return layer


def _before_the_class_token(backbone: nn.Module) -> str:
    blocks = getattr(backbone, "blocks", None)
    if has_class_token(backbone) and isinstance(blocks, nn.Module) and len(list(blocks.children())):
        last = [name for name, _ in blocks.named_children()][-1]
        if hasattr(blocks.get_submodule(last), "norm1"):
            return f"blocks.{last}.norm1"
    return "last"


def _last_of(
    network: nn.Module,
    named: dict[str, nn.Module],
    convert: Callable[[Tensor], Tensor],
    image: Tensor,
    places: int,
) -> str:
    """Of the coarsest maps with so many places a side, the last one of the outermost modules."""
    found: dict[str, tuple[int, int]] = {}

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            shape = _shape(convert, output)
            found.pop(name, None)  # of several calls the last one counts
            if shape is not None and min(shape) >= places:
                found[name] = shape

        return hook

    with ExitStack() as hooks, evaluating(network):
        for name, module in named.items():
            if name:
                hooks.callback(module.register_forward_hook(note(name)).remove)
        network(image)
    if not found:
        if "last" in named:
            return "last"
        raise UsageError("No layer of the network gives a feature map. Name one with its own as_map.")
    coarsest = min(height * width for height, width in found.values())
    if "last" in found and found["last"][0] * found["last"][1] == coarsest:
        return "last"
    candidates = [name for name, (height, width) in found.items() if height * width == coarsest]
    outermost = min(name.count(".") for name in candidates)
    return [name for name in candidates if name.count(".") == outermost][-1]


def _shape(convert: Callable[[Tensor], Tensor], output: object) -> tuple[int, int] | None:
    """Height and width of an output's map; None where it has none."""
    if not isinstance(output, Tensor) or not torch.is_floating_point(output):
        return None
    try:
        shape = convert(output).shape
    except UsageError:
        return None
    # The windows of a windowed attention come as many small maps an image.
    return (shape[-2], shape[-1]) if len(shape) == 4 and shape[0] == 1 else None
