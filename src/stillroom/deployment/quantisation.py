"""An exported network in eight-bit integers: which of its layers are rounded, and how.

Static quantisation by ONNX Runtime's own tools, in the form that other runtimes read as well (pairs of QuantizeLinear and
DequantizeLinear). Weights are int8, symmetric, with a scale for each output channel. Activations are uint8 with one scale,
from the least and largest values of validation images: with these a CPU that has integer instructions is fastest. What is
not between two rounded layers stays float32: the normalisation of pixels, and all from the pooled features on, so that
temperature and distances are computed as in the float32 file, of features that an offset gives the same means. A layer that
sees means over the whole image, where small differences count, is stored in int8 and computed in float32.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillroom.deployment.session import Opened, first_line, open_session
from stillroom.errors import UsageError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_WEIGHTED = ("Conv", "Gemm", "MatMul")
_BETWEEN = ("Add", "Mul", "Clip", "Relu", "Sigmoid", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat")
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
        self._maker = {output: node for node in model.graph.node for output in node.output}
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
            if node.op_type in _BETWEEN and given and given <= integers:
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

    def with_rounded(self, layers: Sequence[Layer]) -> ModelProto:
        """The model with the weights of some layers as int8 holds them, and computed in float32 as before."""
        from onnx import numpy_helper

        model = copied(self.model)
        wanted = {self._node(layer.node).input[1]: layer.axis for layer in layers}
        for tensor in model.graph.initializer:
            if tensor.name in wanted:
                values = rounded(numpy_helper.to_array(tensor), wanted[tensor.name])
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return model

    @cached_property
    def _weighted(self) -> list[NodeProto]:
        return [node for node in self._behind("logits") if self._is_weighted(node)]

    def _sees_means(self, node: NodeProto) -> bool:
        """Whether all that enters a node are means over the whole image."""
        maker = self._maker.get(node.input[0])
        if maker is None or maker.op_type in _MEANS:
            return maker is not None
        return (maker.op_type in (*_PASSING, *_WEIGHTED, "Reshape", "Flatten", "Squeeze")) and self._sees_means(maker)

    def _is_of_one_place(self, node: NodeProto) -> bool:
        known = (
            value.type.tensor_type.shape.dim for value in self.model.graph.value_info if value.name == node.input[0]
        )
        given = [dimension.dim_value for dimension in next(known, ())][1:]
        return node.op_type == "Conv" and given[1:] == [1, 1] and list(self._weights[node.input[1]].dims[1:]) == given

    def _node(self, name: str) -> NodeProto:
        return _named(self.model, name)

    def _is_weighted(self, node: NodeProto) -> bool:
        if node.op_type not in _WEIGHTED or len(node.input) < 2:
            return False
        tensor: TensorProto | None = self._weights.get(node.input[1])
        return tensor is not None and len(tensor.dims) >= 2

    def _behind(self, *names: str) -> list[NodeProto]:
        """All nodes that a value is computed from."""
        found: dict[str, NodeProto] = {}
        asked = list(names)
        while asked:
            node = self._maker.get(asked.pop())
            if node is not None and node.name not in found:
                found[node.name] = node
                asked += node.input
        return list(found.values())

    def _feeds(self, node: NodeProto, others: Sequence[NodeProto]) -> bool:
        return any(node.name in self._names_behind(other.name) for other in others if other is not node)

    def _names_behind(self, name: str) -> frozenset[str]:
        if name not in self._cache:
            self._cache[name] = frozenset(node.name for node in self._behind(*self._node(name).input))
        return self._cache[name]

    @cached_property
    def _cache(self) -> dict[str, frozenset[str]]:
        return {}

    def _taken_along(self, name: str) -> set[str]:
        taken, asked = {name}, list(self._node(name).output)
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


def quantised(graph: Graph, images: np.ndarray, left_float: Sequence[Layer] = ()) -> ModelProto:
    """The model with its layers in integers.

    Args:
        graph: the float32 model.
        images: ``[N, C, S, S]`` float32 in [0, 1], N >= 1, of validation: by them the ranges of activations are found.
        left_float: layers that stay as they are.

    Raises:
        UsageError: the tool fails on this network.
    """
    inside = graph.between(left_float)
    # The runtime's tool takes no names for all names.
    model = _by_runtime(graph.model, images, inside) if inside else copied(graph.model)
    for layer in graph.layers:
        if layer.stored_only and layer not in left_float:
            _store(model, layer)
    recentre(model, graph, images, feature_means(graph.model, graph, images))
    del model.metadata_props[:]
    model.ir_version = graph.model.ir_version
    model.producer_name, model.producer_version = graph.model.producer_name, graph.model.producer_version
    return model


def _by_runtime(model: ModelProto, images: np.ndarray, nodes: list[str]) -> ModelProto:
    """The model with these nodes in integers."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, quiet(), refusing("integers"):
        source, path = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)  # of a model in memory the runtime's tool changes the weights into references
        quantize_static(
            source,
            path,
            _Images(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=[*_WEIGHTED, *_BETWEEN],
            nodes_to_quantize=nodes,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
        return onnx.load(path)


def feature_means(model: ModelProto, graph: Graph, images: np.ndarray) -> list[np.ndarray]:
    """Of what enters each of the graph's heads, the mean over images ``[N, C, S, S]``, as the model computes it."""
    from onnx import ValueInfoProto

    names = [_named(model, head.name).input[0] for head in graph.heads]
    watched = copied(model)
    watched.graph.output.extend(ValueInfoProto(name=name) for name in names)
    content = watched.SerializeToString()
    session = open_session(content, Opened(Path("watched"), 1, (0, 0), content=content))
    parts = [session.run(names, batch) for batch in iter(_Images(images).get_next, None)]
    return [np.concatenate(found).mean(axis=0, dtype=np.float64) for found in zip(*parts, strict=True)]


def recentre(model: ModelProto, graph: Graph, images: np.ndarray, means: Sequence[np.ndarray]) -> None:
    """Move the features of a rounded model so that they have the means of the float32 one.

    Rounding moves features of all images alike more than it moves each: an offset in float32 takes that back, of distances
    from training images as well (bias correction; Nagel et al., ICCV 2019, there layer by layer).

    Args:
        model: it is changed.
        graph: what it was made of.
        images: ``[N, C, S, S]`` float32 in [0, 1], N >= 1.
        means: of the float32 model, see :func:`feature_means`.
    """
    from onnx import helper, numpy_helper

    for head, wanted, found in zip(graph.heads, means, feature_means(model, graph, images), strict=True):
        features = _named(model, head.name).input[0]
        offset, moved = f"{head.name}_offset", f"{head.name}_recentred"
        if any(features == f"{other.name}_recentred" for other in graph.heads):
            continue  # two heads read the same features
        model.graph.initializer.append(numpy_helper.from_array((wanted - found).astype(np.float32), offset))
        place = next(number for number, node in enumerate(model.graph.node) if features in node.output)
        for user in model.graph.node:
            user.input[:] = [moved if name == features else name for name in user.input]
        model.graph.node.insert(place + 1, helper.make_node("Add", [features, offset], [moved], name=moved))


def _named(model: ModelProto, name: str) -> NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def copied(model: ModelProto) -> ModelProto:
    """A copy that can be changed."""
    twin = type(model)()
    twin.CopyFrom(model)
    return twin


def _store(model: ModelProto, layer: Layer) -> None:
    """Keep a layer's weights in int8, each channel with its step; they are made float32 once, where the file is opened.

    By Cast and Mul: a DequantizeLinear of weights is no constant to ONNX Runtime, which computes it again for every image. A
    convolution of one place becomes a product of matrices, for which the runtime has the faster kernel.
    """
    from onnx import TensorProto, helper, numpy_helper

    tensor = next(one for one in model.graph.initializer if one.name == layer.weight)
    user = _named(model, layer.node)
    values = numpy_helper.to_array(tensor)
    if layer.of_one_place:
        values = values[:, :, 0, 0]
        _as_product(model, user)
    others = tuple(number for number in range(values.ndim) if number != layer.axis)
    step = np.abs(values).max(axis=others, keepdims=True) / STEPS
    step = np.where(step > 0, step, 1).astype(np.float32)
    whole = np.round(values / step).astype(np.int8)
    stored, steps, cast, made = (f"{layer.weight}_{part}" for part in ("stored", "step", "cast", "float"))
    model.graph.initializer.remove(tensor)
    model.graph.initializer.extend([numpy_helper.from_array(whole, stored), numpy_helper.from_array(step, steps)])
    user.input[1] = made
    model.graph.node.insert(0, helper.make_node("Cast", [stored], [cast], name=cast, to=TensorProto.FLOAT))
    model.graph.node.insert(1, helper.make_node("Mul", [cast, steps], [made], name=made))


def _as_product(model: ModelProto, convolution: NodeProto) -> None:
    """Make a node that convolves ``[B, C, 1, 1]`` by kernels of one place a Gemm between two changes of shape."""
    from onnx import helper, numpy_helper

    (given, *rest), made = convolution.input, convolution.output[0]
    place = list(model.graph.node).index(convolution)
    flat, product, axes = (f"{convolution.name}_{part}" for part in ("flat", "product", "axes"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), axes))
    convolution.CopyFrom(helper.make_node("Gemm", [flat, *rest], [product], name=convolution.name, transB=1))
    model.graph.node.insert(place + 1, helper.make_node("Unsqueeze", [product, axes], [made], name=made))
    model.graph.node.insert(place, helper.make_node("Flatten", [given], [flat], name=flat))


class _Images:
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


@contextmanager
def refusing(precision: str) -> Iterator[None]:
    """The tool has no exceptions of its own: what it cannot do is said in a line, and costs no run."""
    try:
        yield
    except Exception as error:
        reason = first_line(error)
        raise UsageError(f"ONNX Runtime cannot compute this network in {precision}: {reason}.") from error


@contextmanager
def quiet() -> Iterator[None]:
    before: int = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
