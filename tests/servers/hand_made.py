"""A model made by hand in ONNX: its logits are linear in the mean of each channel, so that its right answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from stillroom.deployment.metadata import ModelMetadata
from stillroom.files.own_digest import with_own_digest
from stillroom.task import MultiClass, Task

TWO = MultiClass(("dark", "bright"))
SIZE = 8


def write_model(path: Path, task: Task = TWO, *, channels: int = 1, white: float = 255, **changes) -> Path:
    """Two classes: logits [-m, m] with m = 4 * mean - 2. More: class 1 + c says so of channel c alone.

    ``distance`` is how much brighter the image's brightest pixel is than its mean, of the first channel.
    """
    settings = {"name": "by_hand", "size": SIZE, "fit": "pad", "temperature": 1.0} | changes
    metadata = ModelMetadata(task=task, channels=channels, white=white, **settings)
    count = len(task.classes)
    gain = np.zeros((channels, count), np.float32)
    gain[:, 0], gain[np.arange(channels), np.arange(channels) % (count - 1) + 1] = -4 / channels, 4
    activation = helper.make_node("Softmax" if task.exclusive else "Sigmoid", ["logits"], ["probabilities"])
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
            helper.make_node("Gemm", ["means", "gain", "bias"], ["logits"]),
            activation,
            helper.make_node("ReduceMax", ["images"], ["brightest"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Sub", ["brightest", "mean"], ["distance"]),
        ],
        "by_hand",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", channels, SIZE, SIZE])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count])
            for name in ("logits", "probabilities")
        ]
        + [helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["batch"])],
        [
            numpy_helper.from_array(gain, "gain"),
            numpy_helper.from_array(np.array([2] + [-2] * (count - 1), np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata.to_properties())
    path.write_bytes(with_own_digest(model.SerializeToString()))
    return path
