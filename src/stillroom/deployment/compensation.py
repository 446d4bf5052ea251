"""Weights in eight bits that make up for each other's rounding: layer by layer, so that a layer's outputs stay as they were.

A weight that is rounded moves its layer's output by as much as its input is large. Those of the same output channel that come
after it are moved so that they take that back, before they are rounded themselves (GPTQ; Frantar et al., ICLR 2023). A layer
begins with what the layers before it, rounded by then, have made of its input: by least squares its weights are first moved
to give of that input what they gave of the float32 one (GPTAQ; Li et al., ICML 2025). Nothing is trained: a layer's weights
follow from products of its inputs, of a few images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.deployment.graph import STEPS, Graph, Layer, values_in

if TYPE_CHECKING:
    from onnx import NodeProto

_DAMPING = 0.01
"""Of the mean square of a layer's inputs, added to each: inputs that were hardly seen move no weights."""
_PLACES = 1024
"""Of each image's at most: the others tell nearly the same."""
_BLOCK = 128
"""Weights of a channel after which those behind are brought up to date: the same result, of fewer passes over them."""


def compensated(
    graph: Graph,
    images: np.ndarray,
    left_float: Sequence[Layer] = (),
    *,
    advance: Callable[..., Any] = lambda *_, **__: None,
) -> dict[int, np.ndarray]:
    """The weights of a graph's layers as int8 holds them, by the layer's number.

    Args:
        graph: the float32 model.
        images: ``[N, C, S, S]`` float32 in [0, 1], N >= 1.
        left_float: layers whose weights stay as they are.
        advance: called after each layer.
    """
    found: dict[int, np.ndarray] = {}
    rounded: list[Layer] = []
    for layer in graph.layers:
        if layer not in left_float:
            node, weight = graph.node(layer), graph.weights(layer)
            given, seen = (
                values_in(model, node.input[0], images) for model in (graph.model, graph.with_rounded(rounded, found))
            )
            rows = _rows(weight, layer, _groups(node))
            product, apart = np.zeros((2, len(rows), rows.shape[-1], rows.shape[-1]))
            for before, now in zip(given, seen, strict=True):
                wanted, entered = (
                    np.concatenate([_entering(one, node, weight.shape) for one in batch], axis=1)
                    for batch in (before, now)
                )
                product += entered.transpose(0, 2, 1) @ entered
                apart += (wanted - entered).transpose(0, 2, 1) @ entered
            found[layer.number] = _as_weight(_rounded(rows, product, apart), weight, layer)
            rounded.append(layer)
        advance()
    return found


def _rounded(rows: np.ndarray, product: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Weights that are whole steps, and give of a layer's input what ``rows`` gave of the float32 network's.

    Args:
        rows: ``[G, R, D]``, of G groups R output channels, of D weights each.
        product: ``[G, D, D]``, X' X of the layer's inputs, a row of X for each place.
        apart: ``[G, D, D]``, (F - X)' X, with F the inputs in the float32 network.

    Returns:
        ``[G, R, D]``. The largest weight of each channel, once moved to the layer's input, is 127 steps.
    """
    size = rows.shape[-1]
    level = np.trace(product, axis1=1, axis2=2)[:, None, None] / size
    inverse = np.linalg.inv(product + np.where(level > 0, _DAMPING * level, 1) * np.eye(size))
    left = rows + rows @ apart @ inverse
    # Upper: how an error at j is taken back by the weights behind j.
    factor = np.linalg.cholesky(inverse).transpose(0, 2, 1)
    largest = np.abs(left).max(axis=2, keepdims=True)
    step = np.where(largest > 0, largest / STEPS, 1)
    fixed = np.abs(left) == largest
    whole = np.where(fixed, np.sign(left) * STEPS, 0.0)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        errors = np.empty((*rows.shape[:2], stop - start))
        for j in range(start, stop):
            nearest = np.clip(np.round(left[:, :, j] / step[:, :, 0]), -STEPS, STEPS)
            whole[:, :, j] = np.where(fixed[:, :, j], whole[:, :, j], nearest)
            error = (left[:, :, j] - whole[:, :, j] * step[:, :, 0]) / factor[:, None, j, j]
            left[:, :, j:stop] -= error[:, :, None] * factor[:, None, j, j:stop]
            errors[:, :, j - start] = error
        left[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    return whole * step


def _entering(value: np.ndarray, node: NodeProto, shape: tuple[int, ...]) -> np.ndarray:
    """What a layer multiplies by its weights of one image: ``[G, P, D]`` float32, of P places the D inputs of each group.

    Args:
        value: what enters the layer of one image, without the axis of images.
        node: the layer.
        shape: of its weights.
    """
    if node.op_type != "Conv":
        return _some(value.reshape(1, -1, value.shape[-1]))
    how, kernel = _attributes(node), shape[2:]
    axes = tuple(range(1, value.ndim))
    apart = how.get("dilations", [1] * len(axes))
    pads = how.get("pads", [0] * 2 * len(axes))
    padded = np.pad(value, [(0, 0), *zip(pads[: len(axes)], pads[len(axes) :], strict=True)])
    window = [(taps - 1) * step + 1 for taps, step in zip(kernel, apart, strict=True)]
    seen = np.lib.stride_tricks.sliding_window_view(padded, window, axis=axes)
    strides = how.get("strides", [1] * len(axes))
    seen = seen[(slice(None), *(slice(None, None, step) for step in (*strides, *apart)))]
    groups, places = _groups(node), int(np.prod(seen.shape[1 : value.ndim]))
    each = seen.reshape(groups, len(value) // groups, places, -1)
    return _some(each.transpose(0, 2, 1, 3).reshape(groups, places, -1))


def _some(places: np.ndarray) -> np.ndarray:
    if places.shape[1] <= _PLACES:
        return places
    return places[:, np.random.default_rng(0).permutation(places.shape[1])[:_PLACES]]


def _rows(weight: np.ndarray, layer: Layer, groups: int) -> np.ndarray:
    """Weights ``[G, R, D]``, a row for each output channel."""
    first = np.moveaxis(weight, layer.axis, 0)
    return first.reshape(groups, len(first) // groups, -1).astype(np.float64)


def _as_weight(rows: np.ndarray, weight: np.ndarray, layer: Layer) -> np.ndarray:
    shape = np.moveaxis(weight, layer.axis, 0).shape
    return np.ascontiguousarray(np.moveaxis(rows.reshape(shape), 0, layer.axis), dtype=np.float32)


def _groups(node: NodeProto) -> int:
    return int(_attributes(node).get("group", 1))


def _attributes(node: NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
