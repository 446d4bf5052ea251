"""An exported network in half precision: which of it is stored and computed in sixteen-bit floats.

From the first layer to the last all is float16, by the converter that comes with ONNX Runtime. What stands before (the
normalisation of pixels) and behind (pooled features, logits, temperature, distances) stays float32, as do inputs and outputs.
The converter would round these at each step, too: so it is given the part between alone, which is put back with casts.
"""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillroom.deployment.graph import Graph
from stillroom.deployment.quantisation import quiet, refusing
from stillroom.deployment.session import Opened, open_session

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

FP16_FILE = "student.fp16.onnx"
"""Its name in a run's folder, beside the float32 file."""

HOLDS = float(np.finfo(np.float16).max)
"""The largest number of float16."""
_AT_ONCE = 4


def halved(graph: Graph) -> ModelProto:
    """The model with its layers in float16.

    Raises:
        UsageError: the tool fails on this network.
    """
    import onnx
    from onnx import TensorProto, helper
    from onnxruntime.transformers.float16 import convert_float_to_float16

    chosen = graph.from_first_to_last()
    with quiet(), refusing("half precision"):
        model = onnx.shape_inference.infer_shapes(graph.model)
        whole = model.graph
        inside = [node for node in whole.node if node.name in chosen]
        outside = [node for node in whole.node if node.name not in chosen]
        made, wanted = ({name for node in inside for name in getattr(node, end)} for end in ("output", "input"))
        outer = {name for node in outside for name in node.input} | {output.name for output in whole.output}
        weights = [tensor for tensor in whole.initializer if tensor.name in wanted]
        known = {value.name: value for value in (*whole.input, *whole.value_info, *whole.output)}
        entering = sorted(wanted - made - {tensor.name for tensor in weights} - {""})
        leaving = sorted(made & outer)
        ends = [[known[name] for name in names] for names in (entering, leaving)]
        part = helper.make_graph(inside, "half", ends[0], ends[1], weights)
        half = convert_float_to_float16(helper.make_model(part, opset_imports=model.opset_import)).graph

    kind = {name: value.type.tensor_type.elem_type for name, value in known.items()}
    renamed = {name: f"{name}_half" for name in (*entering, *leaving) if kind[name] == TensorProto.FLOAT}
    renamed |= {tensor.name: f"{tensor.name}_half" for tensor in half.initializer}
    for node in half.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for tensor in half.initializer:
        tensor.name = renamed[tensor.name]
    casts = [
        *(_cast(name, renamed[name], TensorProto.FLOAT16) for name in entering if name in renamed),
        *(_cast(renamed[name], name, TensorProto.FLOAT) for name in leaving if name in renamed),
    ]
    nodes = _in_order([*outside, *half.node, *casts])
    kept = [tensor for tensor in whole.initializer if tensor.name in outer]
    result = helper.make_model(
        helper.make_graph(nodes, whole.name, whole.input, whole.output, [*kept, *half.initializer]),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        functions=model.functions,
    )
    return result


def largest(graph: Graph, images: np.ndarray) -> float:
    """The largest number, by its size, that stands between the first layer and the last; one above :data:`HOLDS` is lost.

    It has to be looked for: on a CPU without instructions for float16, ONNX Runtime computes in float32, and loses none.

    Args:
        graph: the float32 model.
        images: ``[N, C, S, S]`` float32 in [0, 1], N >= 1.
    """
    from onnx import TensorProto, shape_inference

    watched, chosen = shape_inference.infer_shapes(graph.model), graph.from_first_to_last()
    made = {name for node in watched.graph.node if node.name in chosen for name in node.output}
    there = {output.name for output in watched.graph.output}
    kinds = {
        value.name: value.type.tensor_type.elem_type for value in (*watched.graph.value_info, *watched.graph.output)
    }
    names = sorted(name for name in made if kinds.get(name) == TensorProto.FLOAT)
    watched.graph.output.extend(
        [value for value in watched.graph.value_info if value.name in names and value.name not in there]
    )
    content = watched.SerializeToString(deterministic=True)
    session = open_session(content, Opened(Path(FP16_FILE), 1, (0, 0), "none", content))
    parts = (images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE))
    return max(float(np.abs(values).max()) for part in parts for values in session.run(names, {"images": part}))


def _cast(given: str, made: str, to: int) -> NodeProto:
    from onnx import helper

    return helper.make_node("Cast", [given], [made], name=f"{made}_cast", to=to)


def _in_order(nodes: list[NodeProto]) -> list[NodeProto]:
    """Every node behind those whose outputs it reads, as the format asks."""
    maker = {output: number for number, node in enumerate(nodes) for output in node.output}
    reads = {number: {maker[name] for name in node.input if name in maker} for number, node in enumerate(nodes)}
    return [nodes[number] for number in TopologicalSorter(reads).static_order()]
