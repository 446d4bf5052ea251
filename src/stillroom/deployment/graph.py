"""An exported float32 model, as far as rounding it needs to know: its layers, and what lies between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillroom.deployment.session import Opened, open_session
from stillroom.errors import UsageError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

WEIGHTED = ("Conv", "Gemm", "MatMul")
BETWEEN = ("Add", "Mul", "Clip", "Relu", "Sigmoid", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat")
"""Operations with integer kernels that join convolutions. Others are computed in float32."""
_PASSING = ("Clip", "Relu", "HardSwish", "HardSigmoid", "Sigmoid", "LeakyRelu")
_MEANS = ("ReduceMean", "GlobalAveragePool")
_BATCH = 16
STEPS = 127
"""The largest integer that a weight becomes."""


@dataclass(frozen=True)
class Layer:
    """A layer that can be rounded.

    Attributes:
        number: which of the graph's layers, from 0.
        node: its name in the graph.
        weight: the name of its weights, which says where they stand in the network.
        axis: that of the weights' output channels.
        stored_only: it is stored in integers and computed in float32.
        of_one_place: it convolves a map of one place, by kernels of one.
    """

    number: int
    node: str
    weight: str
    axis: int
    stored_only: bool = False
    of_one_place: bool = False

    @property
    def name(self) -> str:
        """As torch names it, where the exporter kept that name."""
        if not self.weight.startswith("network."):
            return self.node
        return self.weight.removeprefix("network.").removeprefix("backbone.").removesuffix(".weight")


class Graph:
    """What an exported float32 model is made of, as far as rounding it needs to know.

    Args:
        model: with an output ``logits``.

    Raises:
        UsageError: it has no layer that can be rounded.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._maker = _makers(model)
        self._users: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        if not self.layers:
            raise UsageError("This network has no convolution or matrix product that could be computed in integers.")

    @cached_property
    def layers(self) -> list[Layer]:
        """The layers that can be rounded, in the order in which they are computed: all but those that answer by class."""
        inside = {node.name for node in self._weighted} - {node.name for node in self.heads}
        found = [node for node in self.model.graph.node if node.name in inside]
        return [
            Layer(number, node.name, node.input[1], _axis(node), self._sees_means(node), self._is_of_one_place(node))
            for number, node in enumerate(found)
        ]

    @cached_property
    def heads(self) -> list[NodeProto]:
        """The layers that answer by class: what enters them are the features."""
        return [node for node in self._weighted if not self._feeds(node, self._weighted)]

    def between(self, left_float: Sequence[Layer] = ()) -> list[str]:
        """The nodes that are computed in integers: rounded layers and what joins convolutions.

        What joins matrix products, such as a transformer's sums and activations, stays float32: the runtime computes those
        products from integers to float32 in one step, and its own kernels of attention, normalisation and GELU beat rounding.
        A layer that stays float32 takes along what follows up to the next layer or sum. ONNX Runtime would else find a float
        layer between two integer ones and round it after all, by one scale for all of its channels, where nobody asked.
        """
        kept = {layer.node for layer in self.layers if not layer.stored_only}
        integers: set[str] = set()
        for node in self.model.graph.node:
            given = {name for name in node.input if name and name not in self._weights}
            if node.op_type in BETWEEN and given and given <= integers:
                kept.add(node.name)
            if node.name in kept and node.op_type != "MatMul":
                integers.update(node.output)
        for layer in left_float:
            kept -= self._taken_along(layer.node)
        return [node.name for node in self.model.graph.node if node.name in kept]

    def from_first_to_last(self) -> set[str]:
        """The names of the layers and of all nodes on the way from one to another."""
        layers = {layer.node for layer in self.layers}
        before = layers.union(*(self._names_behind(name) for name in layers))
        return {name for name in before if name in layers or self._names_behind(name) & layers}

    def with_rounded(self, layers: Sequence[Layer], weights: Mapping[int, np.ndarray] | None = None) -> ModelProto:
        """The model with the weights of some layers as int8 holds them, and computed in float32 as before.

        Args:
            layers: which.
            weights: theirs, by the layer's number; None to round each to the nearest step.
        """
        from onnx import numpy_helper

        model = copied(self.model)
        wanted = {layer.weight: layer for layer in layers}
        for tensor in model.graph.initializer:
            layer = wanted.get(tensor.name)
            if layer is not None:
                values = rounded(self.weights(layer), layer.axis) if weights is None else weights[layer.number]
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return model

    def weights(self, layer: Layer) -> np.ndarray:
        """A layer's float32 weights."""
        from onnx import numpy_helper

        return np.asarray(numpy_helper.to_array(self._weights[layer.weight]))

    def node(self, layer: Layer) -> NodeProto:
        """What computes a layer."""
        return named(self.model, layer.node)

    @cached_property
    def _weighted(self) -> list[NodeProto]:
        return [node for node in _behind(self._maker, "logits") if self._is_weighted(node)]

    def _sees_means(self, node: NodeProto) -> bool:
        """Whether all that enters a node are means over the whole image."""
        maker = self._maker.get(node.input[0])
        if maker is None or maker.op_type in _MEANS:
            return maker is not None
        return (maker.op_type in (*_PASSING, *WEIGHTED, "Reshape", "Flatten", "Squeeze")) and self._sees_means(maker)

    def _is_of_one_place(self, node: NodeProto) -> bool:
        known = (
            value.type.tensor_type.shape.dim for value in self.model.graph.value_info if value.name == node.input[0]
        )
        given = [dimension.dim_value for dimension in next(known, ())][1:]
        return node.op_type == "Conv" and given[1:] == [1, 1] and list(self._weights[node.input[1]].dims[1:]) == given

    def _is_weighted(self, node: NodeProto) -> bool:
        if node.op_type not in WEIGHTED or len(node.input) < 2:
            return False
        tensor: TensorProto | None = self._weights.get(node.input[1])
        return tensor is not None and len(tensor.dims) >= 2

    def _feeds(self, node: NodeProto, others: Sequence[NodeProto]) -> bool:
        return any(node.name in self._names_behind(other.name) for other in others if other is not node)

    def _names_behind(self, name: str) -> frozenset[str]:
        if name not in self._cache:
            self._cache[name] = frozenset(node.name for node in _behind(self._maker, *named(self.model, name).input))
        return self._cache[name]

    @cached_property
    def _cache(self) -> dict[str, frozenset[str]]:
        return {}

    def _taken_along(self, name: str) -> set[str]:
        taken, asked = {name}, list(named(self.model, name).output)
        while asked:
            for user in self._users.get(asked.pop(), []):
                if user.name not in taken:
                    taken.add(user.name)
                    if user.op_type in _PASSING:
                        asked += user.output
        return taken


def rounded(weights: np.ndarray, axis: int) -> np.ndarray:
    """Weights as int8 holds them: along ``axis``, the largest of each channel is 127 steps. float32, of the same shape."""
    others = tuple(number for number in range(weights.ndim) if number != axis)
    step = np.abs(weights).max(axis=others, keepdims=True) / STEPS
    return np.asarray(np.round(weights / np.where(step > 0, step, 1)) * step, dtype=np.float32)


def values_in(model: ModelProto, name: str, images: np.ndarray) -> Iterator[np.ndarray]:
    """A value inside a model, of images ``[N, C, S, S]`` batch after batch. Only what it is computed from is computed."""
    from onnx import ValueInfoProto

    if name == "images":
        yield from (batch["images"] for batch in iter(Batches(images).get_next, None))
        return
    part = copied(model)
    needed = {node.name for node in _behind(_makers(model), name)}
    del part.graph.node[:], part.graph.output[:]
    part.graph.node.extend(node for node in model.graph.node if node.name in needed)
    part.graph.output.append(ValueInfoProto(name=name))
    content = part.SerializeToString()
    session = open_session(content, Opened(Path("part"), 1, (0, 0), content=content))
    for batch in iter(Batches(images).get_next, None):
        yield session.run([name], batch)[0]


def _makers(model: ModelProto) -> dict[str, NodeProto]:
    """Each value's node."""
    return {output: node for node in model.graph.node for output in node.output}


def _behind(makers: Mapping[str, NodeProto], *names: str) -> list[NodeProto]:
    """All nodes that values are computed from."""
    found: dict[str, NodeProto] = {}
    asked = list(names)
    while asked:
        node = makers.get(asked.pop())
        if node is not None and node.name not in found:
            found[node.name] = node
            asked += node.input
    return list(found.values())


def named(model: ModelProto, name: str) -> NodeProto:
    """The node of this name."""
    return next(node for node in model.graph.node if node.name == name)


def copied(model: ModelProto) -> ModelProto:
    """A copy that can be changed."""
    twin = type(model)()
    twin.CopyFrom(model)
    return twin


class Batches:
    """Images in batches, as ONNX Runtime's calibration reads them."""

    def __init__(self, images: np.ndarray) -> None:
        self._batches = iter([images[start : start + _BATCH] for start in range(0, len(images), _BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def _axis(node: NodeProto) -> int:
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Gemm" and transposed else 1
