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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillroom.deployment.graph import BETWEEN, STEPS, WEIGHTED, Batches, Graph, Layer, named, values_in
from stillroom.deployment.session import first_line
from stillroom.errors import UsageError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def quantised(
    graph: Graph,
    images: np.ndarray,
    left_float: Sequence[Layer] = (),
    weights: Mapping[int, np.ndarray] | None = None,
) -> ModelProto:
    """The model with its layers in integers.

    Args:
        graph: the float32 model.
        images: ``[N, C, S, S]`` float32 in [0, 1], N >= 1, of validation: by them the ranges of activations are found.
        left_float: layers that stay as they are.
        weights: of the others, by number, as :func:`~stillroom.deployment.compensation.compensated` rounds them; None: each
            to the nearest step.

    Raises:
        UsageError: the tool fails on this network.
    """
    inside = graph.between(left_float)
    model = graph.with_rounded([layer for layer in graph.layers if layer not in left_float], weights)
    if inside:  # the runtime's tool takes no names for all names
        model = _by_runtime(model, images, inside)
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
            Batches(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=[*WEIGHTED, *BETWEEN],
            nodes_to_quantize=nodes,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
        return onnx.load(path)


def feature_means(model: ModelProto, graph: Graph, images: np.ndarray) -> list[np.ndarray]:
    """Of what enters each of the graph's heads, the mean over images ``[N, C, S, S]``, as the model computes it."""
    names = [named(model, head.name).input[0] for head in graph.heads]
    return [np.concatenate(list(values_in(model, name, images))).mean(axis=0, dtype=np.float64) for name in names]


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
        features = named(model, head.name).input[0]
        offset, moved = f"{head.name}_offset", f"{head.name}_recentred"
        if any(features == f"{other.name}_recentred" for other in graph.heads):
            continue  # two heads read the same features
        model.graph.initializer.append(numpy_helper.from_array((wanted - found).astype(np.float32), offset))
        place = next(number for number, node in enumerate(model.graph.node) if features in node.output)
        for user in model.graph.node:
            user.input[:] = [moved if name == features else name for name in user.input]
        model.graph.node.insert(place + 1, helper.make_node("Add", [features, offset], [moved], name=moved))


def _store(model: ModelProto, layer: Layer) -> None:
    """Keep a layer's weights in int8, each channel with its step; they are made float32 once, where the file is opened.

    By Cast and Mul: a DequantizeLinear of weights is no constant to ONNX Runtime, which computes it again for every image. A
    convolution of one place becomes a product of matrices, for which the runtime has the faster kernel.
    """
    from onnx import TensorProto, helper, numpy_helper

    tensor = next(one for one in model.graph.initializer if one.name == layer.weight)
    user = named(model, layer.node)
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
