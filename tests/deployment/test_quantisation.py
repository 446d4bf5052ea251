"""Int8: which layers are rounded, that those which must not be are not, and that nobody rounds them behind our back."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from torch import nn

from stillroom.deployment.graph import Graph, copied, rounded
from stillroom.deployment.int8 import asked, sensitivities, smallest_good
from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.onnx import graph_of
from stillroom.deployment.quantisation import quantised
from stillroom.errors import UsageError
from stillroom.evaluation.density import fit_density
from stillroom.models.zoo import create
from stillroom.task import MultiClass

TASK = MultiClass(("benign", "malignant", "normal"))


class Toy(nn.Module):
    """Stem, depthwise, pointwise, a residual and a head; the depthwise layer's channels differ in size a thousand times."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.ReLU6())
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.last = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU6())
        self.head = nn.Linear(16, 3)
        with torch.no_grad():
            sizes = torch.logspace(-3, 0, 8).view(-1, 1, 1, 1)
            self.depthwise[0].weight.mul_(sizes)
            self.pointwise.weight.div_(sizes.view(1, -1, 1, 1))
            self.head.weight.mul_(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = self.stem((images - 0.5) / 0.25)
        return self.head(self.last(stem + self.pointwise(self.depthwise(stem))).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def graph():
    metadata = ModelMetadata(task=TASK, name="toy", size=32, channels=3, white=255.0, fit="pad", temperature=1.5)
    return Graph(graph_of(Toy().eval(), metadata))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return (rng.random((48, 3, 4, 4)).repeat(8, axis=2).repeat(8, axis=3)).astype(np.float32)


def integers(model):
    found = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    return {tensor.name for tensor in found if len(tensor.dims) > 1}


def test_all_layers_but_the_head_can_be_rounded(graph):
    assert [layer.name for layer in graph.layers] == ["stem.0", "depthwise.0", "pointwise", "last.0"]


def test_weights_are_int8_and_head_and_preprocessing_are_not(graph, images):
    model = quantised(graph, images)
    assert len(integers(model)) == 4
    kinds = {node.name: node.op_type for node in model.graph.node}
    head = next(node for node in model.graph.node if node.output[0] == "logits")
    maker = {output: node for node in model.graph.node for output in node.output}
    assert maker[head.input[0]].op_type != "DequantizeLinear"
    assert head.input[1] not in maker
    assert "QuantizeLinear" in kinds.values()
    scaled = [node for node in model.graph.node if node.op_type in ("Sub", "Div") and "images" in node.input]
    assert scaled
    assert all(maker.get(name) is None for node in scaled for name in node.input)


def test_it_answers_nearly_as_before_and_alike_at_every_level(graph, images):
    whole, model = asked(graph.model, images), quantised(graph, images)
    found = asked(model, images)
    spread = whole.logits.std()
    assert 0 < np.abs(found.logits - whole.logits).max() < 0.35 * spread
    for level in ("none", "basic", "extended"):
        assert np.abs(asked(model, images, level=level).logits - found.logits).max() < 0.1 * spread


def test_features_are_moved_back_to_where_their_mean_was(graph, images):
    """So that logits have the float32 network's mean; without the offset they have not."""
    model, whole = quantised(graph, images), asked(graph.model, images).logits
    unmoved = copied(model)
    offset = next(one for one in unmoved.graph.initializer if one.name == f"{graph.heads[0].name}_offset")
    offset.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(offset)), offset.name))
    moved, left = (np.abs((asked(one, images).logits - whole).mean(axis=0)).max() for one in (model, unmoved))
    assert moved < 1e-4
    assert left > 10 * moved


def test_distances_are_of_the_features_that_were_moved_back():
    network = create("mobilenetv3_small_050", classes=3, size=32).eval()
    metadata = ModelMetadata(task=TASK, name="toy", size=32, channels=3, white=255.0, fit="pad", temperature=1.0)
    shown = np.random.default_rng(0).random((24, 3, 32, 32), dtype=np.float32)
    with torch.inference_mode():
        pooled = network.pooled(torch.from_numpy(shown)).numpy()
    density = fit_density(TASK, pooled, np.arange(24) % 3)
    graph = Graph(graph_of(network, metadata, density=density))
    model = quantised(graph, shown)
    head = next(node for node in model.graph.node if node.name == graph.heads[0].name)
    moved = next(node for node in model.graph.node if head.input[0] in node.output)
    takers = [node.name for node in model.graph.node if moved.input[0] in node.input]
    assert takers == [moved.name]
    assert sum(moved.output[0] in node.input for node in model.graph.node) > 1


def test_a_layer_left_float_takes_along_what_follows(graph, images):
    depthwise = next(layer for layer in graph.layers if layer.name == "depthwise.0")
    model = quantised(graph, images, [depthwise])
    rounded_ones = {name.removesuffix("_quantized") for name in integers(model)}
    assert rounded_ones == {"network.stem.0.weight", "network.last.0.weight"}
    whole, found, plain = (asked(one, images, level=level) for one, level in (
        (graph.model, "all"), (model, "all"), (model, "none")
    ))  # fmt: skip
    assert np.abs(found.logits - plain.logits).max() < 0.1 * whole.logits.std()
    assert np.abs(found.logits - whole.logits).max() < 0.1 * whole.logits.std()


@pytest.mark.slow
def test_a_layer_left_float_is_not_rounded_by_the_runtime(real_weights, real_data):
    """ONNX Runtime rounds a float convolution between integer ones after all, by one scale for all of its channels: of this
    network, whose first depthwise layer has channels of very different sizes, nothing is left then."""
    network = create("mobilenetv2_100", classes=3, size=64, pretrained=True, weights=real_weights()).eval()
    metadata = ModelMetadata(task=TASK, name="toy", size=64, channels=3, white=255.0, fit="pad", temperature=1.0)
    graph = Graph(graph_of(network, metadata))
    paths = sorted((real_data("otoscopy") / "train").rglob("*.jpg"))[::40][:16]
    pictures = [np.asarray(Image.open(path).convert("RGB").resize((64, 64)), dtype=np.float32) / 255 for path in paths]
    images = np.stack(pictures).transpose(0, 3, 1, 2)
    depthwise = next(layer for layer in graph.layers if layer.name == "blocks.0.0.conv_dw")
    whole = asked(graph.model, images).logits

    def error(model, level):
        return np.abs(asked(model, images, level=level).logits - whole).max() / whole.std()

    model = quantised(graph, images, [depthwise])
    assert error(model, "all") < 2 * error(model, "none") + 0.02


def test_weights_are_held_to_half_a_step_of_their_channel():
    weights = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    for axis in (0, 1):
        step = np.abs(weights).max(axis=1 - axis, keepdims=True) / 127
        assert (np.abs(rounded(weights, axis) - weights) <= step / 2 + 1e-6).all()
    assert (rounded(np.zeros((2, 2), np.float32), 0) == 0).all()


def test_the_layer_that_bears_rounding_least_comes_first(graph, images):
    """Planted: all of the depthwise layer's weights but one are so small beside it that they vanish."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    tensor = next(one for one in model.graph.initializer if one.name == "network.depthwise.0.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[:, :, 0, 0] = 300 * np.abs(values).max(axis=(1, 2, 3)).reshape(-1, 1)
    values[:, :, 0, 0] *= np.sign(values[:, :, 0, 1])
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    order = sensitivities(Graph(model), images[:16])
    assert len(order) == 4
    assert [one.worst for one in order] == sorted((one.worst for one in order), reverse=True)
    told = order[0].reason
    assert told.startswith(order[0].layer.name)
    assert "of their spread" in told


def test_layers_stay_float_until_validation_is_content(graph, images):
    whole = asked(graph.model, images)
    order = sensitivities(graph, images[:16])
    found = smallest_good(TASK, graph, whole, images, lambda: order, calibration=images)
    assert found.agreement >= 0.97 or len(found.left_float) > 0
    assert list(found.left_float) == order[: len(found.left_float)]


class Gated(nn.Module):
    """Convolution, a gate made of means over the image, another convolution, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze, self.expand = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.last, self.mix, self.head = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 16, 1), nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen = self.first(images).relu()
        gate = torch.sigmoid(self.expand(self.squeeze(seen.mean(dim=(2, 3), keepdim=True)).relu()))
        return self.head(self.mix(self.last(seen * gate).relu().mean(dim=(2, 3), keepdim=True)).relu().flatten(1))


def test_a_layer_that_sees_means_is_stored_in_int8_and_computed_in_float32(images):
    metadata = ModelMetadata(task=TASK, name="toy", size=32, channels=3, white=255.0, fit="pad", temperature=1.0)
    graph = Graph(graph_of(Gated().eval(), metadata))
    stored = [layer for layer in graph.layers if layer.stored_only]
    assert [layer.name for layer in stored] == ["squeeze", "expand", "mix"]
    model = quantised(graph, images)
    assert len(integers(model)) == 5
    maker = {output: node for node in model.graph.node for output in node.output}
    for layer in stored:
        node = next(node for node in model.graph.node if node.name == layer.node)
        assert [maker[name].op_type for name in node.input[:2]] == ["Flatten", "Mul"]
    # In float32 and with the same rounded weights it is the same network.
    alone = Graph(graph.with_rounded(stored))
    held = asked(quantised(alone, images, [layer for layer in alone.layers if not layer.stored_only]), images).logits
    assert np.abs(held - asked(alone.model, images).logits).max() < 1e-4


def test_weights_that_are_only_stored_become_float32_once(images, tmp_path):
    """Where a file is opened, not for every image: the optimised graph holds nothing that makes them float32."""
    metadata = ModelMetadata(task=TASK, name="toy", size=32, channels=3, white=255.0, fit="pad", temperature=1.0)
    model = quantised(Graph(graph_of(Gated().eval(), metadata)), images)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    assert sum(node.op_type == "Cast" for node in model.graph.node) == 3
    assert not [node for node in nodes if node.op_type == "Cast"]
    assert sum(node.op_type == "Gemm" for node in nodes) == 4  # these three and the head


class Perceptron(nn.Module):
    """Patches, one block of a transformer without its attention, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.norm = nn.Conv2d(3, 16, 8, stride=8), nn.LayerNorm(16)
        self.wide, self.back, self.head = nn.Linear(16, 64), nn.Linear(64, 16), nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(images - 0.5).flatten(2).transpose(1, 2)
        tokens = tokens + self.back(nn.functional.gelu(self.wide(self.norm(tokens))))
        return self.head(tokens.mean(dim=1))


def test_of_a_transformer_products_are_computed_in_integers_and_what_joins_them_in_float32(images):
    metadata = ModelMetadata(task=TASK, name="toy", size=32, channels=3, white=255.0, fit="pad", temperature=1.0)
    graph = Graph(graph_of(Perceptron().eval(), metadata))
    assert [layer.stored_only for layer in graph.layers] == [False] * 3
    kinds = {node.name: node.op_type for node in graph.model.graph.node}
    assert [kinds[name] for name in graph.between()] == ["Conv", "MatMul", "MatMul"]
    model = quantised(graph, images)
    assert len(integers(model)) == 3
    whole, found, plain = asked(graph.model, images), asked(model, images), asked(model, images, level="none")
    assert 0 < np.abs(found.logits - whole.logits).max() < 0.1 * whole.logits.std()
    assert np.abs(found.logits - plain.logits).max() < 0.05 * whole.logits.std()


def test_a_network_with_nothing_to_round_is_refused():
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(images.mean(dim=(2, 3)))

    metadata = ModelMetadata(task=TASK, name="toy", size=16, channels=3, white=255.0, fit="pad", temperature=1.0)
    with pytest.raises(UsageError, match="no convolution"):
        Graph(graph_of(Head().eval(), metadata))
