"""Half precision: what is halved, what is not, and numbers that it would lose."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stillroom.deployment.graph import Graph
from stillroom.deployment.half import HOLDS, halved, largest
from stillroom.deployment.int8 import asked


def toy(gain: float = 1.0) -> Graph:
    """Normalisation, two convolutions, the second of which undoes the first one's gain, a mean, and a head."""
    rng = np.random.default_rng(0)
    weights = {
        "mean": np.full((1, 3, 1, 1), 0.5, np.float32),
        "first": (gain * rng.normal(size=(4, 3, 3, 3))).astype(np.float32),
        "second": (rng.normal(size=(4, 4, 1, 1)) / gain).astype(np.float32),
        "head": rng.normal(size=(4, 2)).astype(np.float32),
        "axes": np.array([2, 3]),
    }
    nodes = [
        helper.make_node("Sub", ["images", "mean"], ["normal"], name="sub"),
        helper.make_node("Conv", ["normal", "first"], ["one"], name="conv1"),
        helper.make_node("Relu", ["one"], ["two"], name="relu"),
        helper.make_node("Conv", ["two", "second"], ["map"], name="conv2"),
        helper.make_node("ReduceMean", ["map", "axes"], ["pooled"], name="pool", keepdims=0),
        helper.make_node("MatMul", ["pooled", "head"], ["logits"], name="head"),
    ]
    ends = [("images", ["b", 3, 8, 8]), ("logits", ["b", 2]), ("map", ["b", 4, 6, 6])]
    images, *answers = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends]
    tensors = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "toy", [images], answers, tensors)
    return Graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


IMAGES = np.random.default_rng(1).random((5, 3, 8, 8), dtype=np.float32)


def test_layers_are_halved_and_what_stands_around_them_is_not():
    model = halved(toy())
    onnx.checker.check_model(model, full_check=True)
    kinds = {tensor.name.removesuffix("_half"): tensor.data_type for tensor in model.graph.initializer}
    assert {name for name, kind in kinds.items() if kind == TensorProto.FLOAT16} == {"first", "second"}
    assert [node.op_type for node in model.graph.node].count("Cast") == 2
    ends = [*model.graph.input, *model.graph.output]
    assert {end.name: end.type.tensor_type.elem_type for end in ends} == dict.fromkeys(("images", "logits", "map"), 1)


def test_it_answers_nearly_as_before():
    graph = toy()
    before, after = asked(graph.model, IMAGES).logits, asked(halved(graph), IMAGES).logits
    assert 0 < np.abs(before - after).max() < 0.01 * before.std() + 0.01


@pytest.mark.parametrize(("gain", "lost"), [(1.0, False), (1e5, True)])
def test_numbers_that_it_would_lose_are_found(gain, lost):
    """NumPy is the oracle; on a CPU the halved file itself gives nothing away."""
    graph = toy(gain)
    weights = {tensor.name: numpy_helper.to_array(tensor).astype(float) for tensor in graph.model.graph.initializer}
    windows = np.lib.stride_tricks.sliding_window_view(IMAGES - 0.5, (3, 3), axis=(2, 3))
    expected = np.abs(np.einsum("bchwij,ocij->bohw", windows, weights["first"])).max()
    found = largest(graph, IMAGES)
    assert found >= expected * 0.999
    assert (found > HOLDS) == lost
    assert np.isfinite(asked(halved(graph), IMAGES).logits).all()
