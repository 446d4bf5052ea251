"""Which layer of a network a heat map is made from, and that layer's output as a feature map.

A layer is named as torch names it (``layer3``, ``blocks.5.2``), for a :class:`Network` below its backbone. ``last`` is the
feature map that a :class:`Network`'s head reads; ``auto`` is the last layer whose map still has four places a side.

A transformer that answers from its class token reads nothing else of the last map, so no gradient reaches the patches
there. For methods that follow gradients, both names then mean the input of its last block.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from stillroom.data.inference import evaluating
from stillroom.errors import UsageError, nearest
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
        channels: ``C'``.
    """

    name: str
    path: str
    module: nn.Module
    as_map: Callable[[Tensor], Tensor]
    channels: int


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
        by_gradient: the method follows gradients, so they must reach the layer.
        as_map: makes ``[B, C', H', W']`` of the layer's output, for networks whose layout Stillroom cannot know.

    Raises:
        UsageError: no such layer, its output is no map of more than one place, or no gradient reaches it.
    """
    backbone = network.backbone if isinstance(network, Network) else network
    size = network.input_size if isinstance(network, Network) else (image.shape[-2], image.shape[-1])

    def by_layout(output: Tensor) -> Tensor:
        return layer_map(backbone, output, size).float()  # of a network in half precision too

    convert = as_map or by_layout
    named = dict(backbone.named_modules())
    if isinstance(network, Network):
        named["last"] = network.last
        name = name or "last"
    if by_gradient and name in (None, "last", "auto"):
        name = _before_the_class_token(network, backbone) or name
    if name is None or name == "auto":
        if as_map is not None:
            raise UsageError("as_map reads the output of one layer: name that layer as well.")
        name = _last_of(network, backbone, named, convert, image, FEWEST_PLACES if name else 2)
    if name not in named or not name:
        raise UsageError(f"The network has no layer {name!r}.{nearest(name, list(named))}")
    path = f"backbone.{name}" if isinstance(network, Network) and name != "last" else name
    layer = Layer(name, path, named[name], convert, channels=0)
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
    layer = replace(layer, channels=convert(seen[-1]).shape[1])
    if by_gradient and not _reached(network, layer, image):
        raise UsageError(
            f"No gradient of the network's answer reaches the map of the layer {name}. Choose an earlier layer, or "
            "Score-CAM, which needs none."
        )
    return layer


def slopes(network: nn.Module, layer: Layer, image: Tensor, value: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The layer's map of ``[1, C, H, W]`` images, and the gradient of ``value(logits)`` in it: ``[1, C', H', W']`` each."""
    with evaluating(network), torch.inference_mode(False), torch.enable_grad(), watched(layer) as seen:
        # Frozen networks have no graph but for an input that asks for one.
        asked = value(network(image.detach().clone().requires_grad_()))
        output = seen[-1]
        found = torch.autograd.grad(asked, output, allow_unused=True)[0] if output.requires_grad else None
    return layer.as_map(output.detach()), layer.as_map(torch.zeros_like(output) if found is None else found)


def _reached(network: nn.Module, layer: Layer, image: Tensor) -> bool:
    return bool(slopes(network, layer, image, lambda logits: logits.square().sum())[1].any())


def _before_the_class_token(network: nn.Module, backbone: nn.Module) -> str | None:
    """The input of a transformer's last block, where the answer comes from the class token."""
    if not has_class_token(backbone) or (isinstance(network, Network) and network.features == "mean"):
        return None
    if stated := getattr(backbone, "last_block_input", None):
        return str(stated)
    blocks = getattr(backbone, "blocks", None)
    parts = list(blocks.named_children()) if isinstance(blocks, nn.Module) else []
    return f"blocks.{parts[-1][0]}.norm1" if parts and hasattr(parts[-1][1], "norm1") else None


def _last_of(
    network: nn.Module,
    backbone: nn.Module,
    named: dict[str, nn.Module],
    convert: Callable[[Tensor], Tensor],
    image: Tensor,
    places: int,
) -> str:
    """Of the coarsest maps on the trunk with so many places a side, the last one of the outermost modules."""
    found: dict[str, tuple[int, int]] = {}

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            shape = _shape(convert, output)
            found.pop(name, None)  # of several calls the last one counts
            if shape is not None:
                found[name] = shape

        return hook

    with ExitStack() as hooks, evaluating(network):
        for name, module in named.items():
            if name:
                hooks.callback(module.register_forward_hook(note(name)).remove)
        network(image)
    trunk = {"last", *_trunk(backbone, "", found)}
    large = {name: height * width for name, (height, width) in found.items() if min(height, width) >= places}
    counts = {name: count for name, count in large.items() if name in trunk}
    if not counts:
        if "last" in named:
            return "last"
        raise UsageError(
            f"No layer of the network gives a feature map of {places} places a side. Name one, with its own as_map where "
            "its layout is unusual."
        )
    coarsest = [name for name, count in counts.items() if count == min(counts.values())]
    return max(reversed(coarsest), key=lambda name: (name == "last", -name.count(".")))  # of equal ones the latest


def _trunk(module: nn.Module, path: str, found: Container[str]) -> Iterator[str]:
    """Names of the modules whose maps follow each other. What happens inside a block may have the look of a map but other
    axes, such as the heads of its attention."""
    for name, child in module.named_children():
        here = f"{path}.{name}" if path else name
        if here in found:
            yield here
        if here not in found or isinstance(child, nn.Sequential):
            yield from _trunk(child, here, found)


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
