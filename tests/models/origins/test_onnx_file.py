"""A network in an ONNX file answers as in torch, whatever its layout, and says what it does not know of itself."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from stillroom.errors import UsageError
from stillroom.models.network import is_opaque
from stillroom.models.weights import weights_digest
from stillroom.models.zoo import create, specification

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
WEIGHT = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def write(path, *, channels=3, last=False, batch="B", side=8, outputs=("said",), notes=None):
    """A file whose answer is the mean of each channel times a matrix."""
    axes = [1, 2] if last else [2, 3]
    shape = [batch, side, side, channels] if last else [batch, channels, side, side]
    mean = helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0)
    nodes = [mean, *(helper.make_node("MatMul", ["mean", "weight"], [name]) for name in outputs)]
    weight = onnx.numpy_helper.from_array(WEIGHT[:channels], "weight")
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 5]) for name in outputs],
        [weight, onnx.numpy_helper.from_array(np.array(axes, dtype=np.int64), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for key, value in (notes or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, path)
    return path


def answer(name, **how):
    return create(name, classes=2, pretrained=True, **how).eval()(IMAGES)


TOLD = "mean=0.5&std=0.25"


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("batch", ["B", 1, 2])
def test_it_answers_as_computed_by_hand(tmp_path, last, batch):
    file = write(tmp_path / "m.onnx", last=last, batch=batch)
    network = create(f"{file}?outputs=logits&{TOLD}", classes=5, pretrained=True).eval()
    expected = ((IMAGES - 0.5) / 0.25).mean((2, 3)) @ torch.from_numpy(WEIGHT)
    assert torch.allclose(network(IMAGES), expected, atol=1e-5)


def test_grey_files_see_the_first_channel(tmp_path):
    file = write(tmp_path / "m.onnx", channels=1)
    network = create(f"{file}?outputs=logits&{TOLD}", classes=5, pretrained=True).eval()
    grey = IMAGES[:, :1]
    expected = ((grey - 0.5) / 0.25).mean((2, 3)) @ torch.from_numpy(WEIGHT[:1])
    assert torch.allclose(network(grey), expected, atol=1e-5)


def test_features_get_a_head_of_ours(tmp_path):
    name = f"{write(tmp_path / 'm.onnx')}?outputs=features&{TOLD}"
    network = create(name, classes=2, pretrained=True).eval()
    assert network.pooled_dim == 5
    assert network.classifier().weight.shape == (2, 5)
    assert is_opaque(network)
    assert not network.rebuilds


def test_the_file_is_known_by_its_content(tmp_path):
    told = f"outputs=logits&{TOLD}"
    one = weights_digest(create(f"{write(tmp_path / 'm.onnx')}?{told}", classes=5))
    assert weights_digest(create(f"{write(tmp_path / 'm.onnx')}?{told}", classes=5)) == one
    changed = write(tmp_path / "m.onnx", notes={"a": "b"})
    assert weights_digest(create(f"{changed}?{told}", classes=5)) != one


def test_a_file_of_ours_says_all_itself(tmp_path):
    notes = {"stillroom.size": "8", "stillroom.task": json.dumps({"classes": list("abcde")})}
    file = write(tmp_path / "m.onnx", outputs=("logits", "probabilities"), notes=notes, side="S")
    spec = specification(str(file))
    assert (spec.native_size, spec.says, spec.classes) == (8, "logits", tuple("abcde"))
    assert spec.brings_weights
    assert not spec.trainable
    expected = IMAGES.mean((2, 3)) @ torch.from_numpy(WEIGHT)
    assert torch.allclose(create(str(file), classes=5).eval()(IMAGES), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("made", "told", "match"),
    [
        ({}, "", "does not say what it answers. Give --teacher-outputs"),
        ({}, "?outputs=logits", "does not say how its pixels are scaled. Give --teacher-mean"),
        ({}, f"?outputs=logit&{TOLD}", "--teacher-outputs features, logits or probabilities"),
        ({"side": "S"}, f"?outputs=logits&{TOLD}", "takes images of any size: say which by --teacher-size"),
        ({}, f"?outputs=logits&size=16&{TOLD}", "takes images of 8 pixels; 16 is another size"),
        ({"outputs": ("a", "b")}, f"?outputs=logits&{TOLD}", r"outputs a, b; it is not said which.*\?output=a"),
        ({"outputs": ("a", "b")}, f"?outputs=logits&output=c&{TOLD}", "there is no 'c'"),
        ({"channels": 2}, f"?outputs=logits&{TOLD}", "square ones of 1 or 3 channels"),
        ({"notes": {"stillroom.size": "x"}}, "", "damaged Stillroom metadata"),
    ],
)
def test_what_is_not_said_or_does_not_fit_is_asked_for(tmp_path, made, told, match):
    file = (
        write(tmp_path / "m.onnx", **({"channels": 3} | made)) if made.get("channels") != 2 else two_channels(tmp_path)
    )
    with pytest.raises(UsageError, match=match):
        create(f"{file}{told}", classes=5)


def two_channels(folder):
    write(folder / "m.onnx", channels=2)
    return folder / "m.onnx"


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    for name, match in ((tmp_path / "m.onnx", "cannot be read as an ONNX file"), (tmp_path / "n.onnx", "No ONNX file")):
        with pytest.raises(UsageError, match=match):
            specification(f"{name}?outputs=logits&{TOLD}")
