import json
import socket
import time

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from stillroom.errors import UsageError
from stillroom.models import efficiency
from stillroom.models.efficiency import machine, profile, profile_onnx


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def test_parameters_macs_and_size_in_closed_form():
    result = profile(network(), channels=3, size=16, latency=False)
    convolution, linear = 3 * 8 * 3 * 3, 8 * 5
    assert result["parameters"] == convolution + 8 + 2 * 8 + linear + 5
    assert result["macs"] == convolution * 8 * 8 + linear
    # Float32 parameters, two running statistics per channel and the batch norm's counter.
    assert result["size_mb"] == pytest.approx(4 * (result["parameters"] + 2 * 8 + 1) / 1e6)
    assert result["latency_ms"] is None


@pytest.mark.parametrize("groups", [1, 4])
def test_grouped_convolutions_cost_less(groups):
    result = profile(nn.Conv2d(4, 8, 3, padding=1, groups=groups), channels=4, size=10, latency=False)
    assert result["macs"] == 4 // groups * 8 * 9 * 100


def test_attention_is_counted():
    class Attention(nn.Module):
        def forward(self, images):
            tokens = images.flatten(2).transpose(1, 2)[:, None]
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    result = profile(Attention(), channels=16, size=4, latency=False)
    assert result["macs"] == 2 * 16 * 16 * 16  # two products of 16 tokens by 16 tokens by 16 features


def test_profiling_leaves_the_network_and_the_random_state_as_they_were():
    module = network().train()
    module[1].eval()
    before, state = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    result = profile(module, channels=3, size=8)
    assert module.training
    assert module[0].training
    assert not module[1].training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    for batch in ("batch_1", "batch_32"):
        timed = result["latency_ms"][batch]
        assert 0 < timed["median"] <= timed["p95"]
        assert 10 <= timed["repeats"] <= 50
    assert result["threads"] == torch.get_num_threads()
    assert result["machine"]
    json.dumps(result, allow_nan=False)


def test_training_flags_come_back_after_a_failure():
    module = network().train()
    with pytest.raises(RuntimeError):
        profile(module, channels=7, size=8)
    assert all(part.training for part in module.modules())


def test_timing_measures_milliseconds_of_one_call():
    timed = efficiency._time(lambda: time.sleep(0.003))
    assert 3 <= timed["median"] < 10
    assert timed["repeats"] == 50


def test_slow_calls_are_repeated_less(monkeypatch):
    monkeypatch.setattr(efficiency, "SECONDS", 0.01)
    assert efficiency._time(lambda: time.sleep(0.003))["repeats"] == 10
    monkeypatch.setattr(efficiency, "PATIENCE", 0.01)
    assert 3 <= efficiency._time(lambda: time.sleep(0.006))["repeats"] < 10


def test_machine_names_the_processor_but_no_host():
    found = machine()
    assert set(found) == {"cpu", "cores", "threads", "torch", "python", "platform"}
    assert found["cores"] >= 1
    assert socket.gethostname() not in json.dumps(found)


def save_model(path, batch):
    """A model that averages over its pixels."""
    node = helper.make_node("ReduceMean", ["images", "axes"], ["logits"], keepdims=0)
    graph = helper.make_graph(
        [node],
        "mean",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], np.array([2, 3]))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)


def test_onnx_model_is_timed_as_deployed(tmp_path):
    save_model(tmp_path / "student.onnx", "batch")
    result = profile_onnx(tmp_path / "student.onnx", channels=3, size=8, threads=1)
    assert result["size_mb"] == (tmp_path / "student.onnx").stat().st_size / 1e6
    assert result["threads"] == 1
    for batch in ("batch_1", "batch_32"):
        assert 0 < result["latency_ms"][batch]["median"] <= result["latency_ms"][batch]["p95"]
    assert profile_onnx(tmp_path / "student.onnx", channels=3, size=8, latency=False)["latency_ms"] is None


def test_onnx_model_of_a_fixed_batch_is_timed_at_that_batch_alone(tmp_path):
    save_model(tmp_path / "student.onnx", 1)
    latency = profile_onnx(tmp_path / "student.onnx", channels=3, size=8)["latency_ms"]
    assert latency["batch_1"]["median"] > 0
    assert latency["batch_32"] is None


def test_a_missing_or_broken_onnx_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nothing\.onnx"):
        profile_onnx(tmp_path / "nothing.onnx", channels=3, size=8)
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(UsageError, match=r"broken\.onnx"):
        profile_onnx(tmp_path / "broken.onnx", channels=3, size=8)
